package engineio

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

// websocketTransport is a WebSocket. Gorilla does the handshake and reads; all writing is done
// here, as whole frames, so that everything queued leaves in one write and no other writer sets
// deadlines on the wire.
type websocketTransport struct {
	c       *Conn
	ws      *websocket.Conn
	wire    net.Conn
	deflate bool   // the peer accepts compressed frames
	base64  bool   // the peer accepts binary messages as text only
	ended   bool   // nothing more is written; guarded by c.mu
	answer  []byte // to the handshake, until it is sent; belongs to the writer
}

// readBuffer is the read buffer of an idle WebSocket. Larger messages bypass it.
const readBuffer = 512

// writeBuffers keeps gorilla from holding a write buffer.
var writeBuffers sync.Pool

// accept takes the connection of a request over. The answer to the request, 101 with the headers h,
// which accept may change, is not sent yet. If accept fails the request has been answered.
func (s *Server) accept(c *Conn, w http.ResponseWriter, r *request, h http.Header) (*websocketTransport, error) {
	deflate := s.o.PerMessageDeflate && offersDeflate(r.Header)
	up := websocket.Upgrader{
		WriteBufferPool:   &writeBuffers,
		EnableCompression: deflate,
		CheckOrigin:       func(*http.Request) bool { return true }, // checked before
	}
	wrapped := &hijacker{ResponseWriter: w}
	up.Error = func(w http.ResponseWriter, _ *http.Request, _ int, _ error) {
		if wrapped.err != nil {
			s.cannotHijack(wrapped)
			return
		}
		badRequest.answer(w, true)
	}
	// Browsers fail a connection if none of their subprotocols is selected, so the first
	// offered one is taken.
	if offered := websocket.Subprotocols(r.Request); len(offered) > 0 {
		h.Set("Sec-Websocket-Protocol", offered[0])
	}
	ws, err := up.Upgrade(wrapped, r.Request, h)
	if err != nil {
		return nil, err
	}
	t := &websocketTransport{
		c:       c,
		ws:      ws,
		wire:    wrapped.conn.Conn,
		deflate: deflate,
		base64:  r.query.Get("b64") != "",
	}
	if tcp, ok := t.raw().(interface{ SetWriteBuffer(bytes int) error }); ok {
		size := kernelBuffer
		if r.forwarded {
			size = hopBuffer
		}
		_ = tcp.SetWriteBuffer(size) // fails on a connection that has ended
	}
	t.answer, wrapped.conn.answer = wrapped.conn.answer, nil
	wrapped.reader.Reset(t.wire) // without a detour, which would need more stack on each idle connection
	ws.SetPingHandler(t.pong)
	ws.SetCloseHandler(func(int, string) error { return nil }) // answered by close
	return t, nil
}

// kernelBuffer is the kernel's send buffer of one WebSocket, in bytes. Without a limit it grows to
// megabytes: on a slow line nothing would be written for longer than PingTimeout, as if the client
// took nothing, and pings would be queued behind what the buffer holds.
const kernelBuffer = 256 << 10

// hopBuffer is that of a WebSocket that another node forwards, which has a buffer of its own.
const hopBuffer = 64 << 10

// raw returns the connection below TLS.
func (t *websocketTransport) raw() net.Conn {
	if secure, ok := t.wire.(*tls.Conn); ok {
		return secure.NetConn()
	}
	return t.wire
}

// drain writes until nothing is queued.
func (t *websocketTransport) drain() {
	c := t.c
	var b *batch
	for {
		c.mu.Lock()
		c.done(b)
		if b = c.queue.take(); b == nil {
			c.rest()
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		if err := t.write(b); err != nil {
			c.close(&CloseError{Reason: TransportError, Err: err}, closeCut)
		}
	}
}

// write sends a batch, in one buffer if no frame is large.
func (t *websocketTransport) write(b *batch) error {
	counts := &t.c.server.counts
	counts.packetsOut.Add(uint64(len(b.packets)))
	counts.bytesOut.Add(uint64(b.bytes))
	bufs := t.c.buffers(b, t.form, "")
	if t.answer != nil {
		(*bufs)[0], t.answer = append(t.answer, (*bufs)[0]...), nil
	}
	return t.c.writeParts(t.wire, bufs)
}

// form returns a packet as a frame that this peer accepts.
func (t *websocketTransport) form(p *Packet) []byte {
	switch op := p.opcode(); {
	case op == opBinary && t.base64:
		return p.base64Frame()
	case t.deflate && !p.noCompress && (op == opText || op == opBinary) &&
		len(p.payload()) >= t.c.server.o.PerMessageDeflateThreshold:
		return p.deflatedFrame()
	default:
		return p.frame
	}
}

// pong answers a ping of the WebSocket protocol. The reader calls it. While the transport is not
// yet the connection's, the reader is the only writer.
func (t *websocketTransport) pong(data string) error {
	p := newPacket(opPong, nil, []byte(data))
	t.c.mu.Lock()
	current := t.c.ws == t
	if current && t.c.closed == nil {
		t.c.queue.addPong(p)
		t.c.kick()
	}
	t.c.mu.Unlock()
	if !current {
		return t.writeNow(p.frame)
	}
	return nil
}

// writeNow writes outside of the queue, with a deadline.
func (t *websocketTransport) writeNow(b []byte) error {
	if err := t.wire.SetWriteDeadline(time.Now().Add(websocketCloseTimeout)); err != nil {
		return err
	}
	if _, err := t.wire.Write(b); err != nil {
		return err
	}
	return t.wire.SetWriteDeadline(time.Time{})
}

// close sends the close of the connection to the peer. c.mu is held.
func (t *websocketTransport) close() {
	t.c.push(closeMessage(t.c.closed))
	t.c.heart.arm(phaseClosing, websocketCloseTimeout)
	t.interruptRead()
}

// closeMessage returns the close frame for the reason of an end: an empty one, unless the
// WebSocket protocol requires a code.
func closeMessage(cause *CloseError) *Packet {
	closed, isClosed := errors.AsType[*websocket.CloseError](cause)
	switch {
	case errors.Is(cause, errTooLarge):
		return closeFrameWith(websocket.CloseMessageTooBig)
	case errors.Is(cause, errNotUTF8):
		return closeFrameWith(websocket.CloseInvalidFramePayloadData)
	case isClosed && closed.Code != websocket.CloseNoStatusReceived:
		return closeFrameWith(closed.Code)
	default:
		return closeFrame
	}
}

// past is a deadline that interrupts a read or a write.
var past = time.Unix(1, 0)

// interruptRead makes a read return. The effect is temporary: hangUp continues to read.
func (t *websocketTransport) interruptRead() {
	_ = t.wire.SetReadDeadline(past) // fails on a closed wire only
}

// cut closes the wire immediately. A TLS connection would send its close alert first, after a write
// that may be stuck.
func (t *websocketTransport) cut() {
	_ = t.raw().Close() // nothing is left to lose
}

// hangUp closes the wire after the last write so that the peer gets it: closing with unread input
// would discard data in flight. It reads until the peer closes its side, the wire is cut, or the
// time is up.
func (t *websocketTransport) hangUp() {
	half, ok := t.wire.(interface{ CloseWrite() error })
	if ok && t.wire.SetReadDeadline(time.Now().Add(hangUpTimeout)) == nil && half.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, t.wire) // ends by an error, if only by the deadline
	}
	_ = t.wire.Close() // nothing is left to lose
}

// recv reads messages from the wire, and acts on the other packets.
func (t *websocketTransport) recv() (Message, error) {
	for t.c.cause() == nil {
		binary, data, err := t.read()
		if err != nil {
			t.c.close(closeOf(err))
			break
		}
		kind := byte(typeBinary)
		n := len(data)
		if !binary {
			kind, data, err = decode(data)
		}
		if fault := t.c.hear(kind, n, err); fault != nil {
			t.c.close(fault, closeDiscard)
			break
		}
		if kind == typeMessage || kind == typeBinary {
			return Message{Binary: kind == typeBinary, Data: data}, nil
		}
	}
	return Message{}, t.c.cause()
}

// closeOf returns the end of the connection that a failed read means.
func closeOf(err error) (*CloseError, closeMode) {
	closed, isClosed := errors.AsType[*websocket.CloseError](err)
	_, isNetwork := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, errTooLarge), errors.Is(err, errNotUTF8):
		return &CloseError{Reason: TransportError, Err: err}, closeDiscard
	case isClosed && closed.Code != websocket.CloseAbnormalClosure:
		return &CloseError{Reason: TransportClose, Err: err}, closeDiscard
	case isClosed, isNetwork, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &CloseError{Reason: TransportClose, Err: err}, closeCut
	default: // a protocol error: gorilla has sent the close
		return &CloseError{Reason: TransportError, Err: err}, closeCut
	}
}

// interrupt closes the connection because its incomplete message exceeds the budget of all
// connections.
func (t *websocketTransport) interrupt() {
	t.c.close(&CloseError{Reason: TransportError, Err: ErrReceiveBudget}, closeCut)
	t.cut() // also if it is not yet the connection's transport
}

func (t *websocketTransport) progress() { t.c.heart.hears() }

var scratch = sync.Pool{New: func() any { return new([4 << 10]byte) }}

// read returns the next message of the wire. The memory belongs to the caller.
func (t *websocketTransport) read() (binary bool, data []byte, err error) {
	opcode, r, err := t.ws.NextReader()
	if err != nil {
		return false, nil, err
	}
	buf := scratch.Get().(*[4 << 10]byte)
	defer scratch.Put(buf)
	s, remote := t.c.server, t.c.handshake.RemoteAddr
	b, arrived, err := s.arriving.read(r, buf[:0], s.o.MaxPayload, t, remote)
	if s.arriving.done(arrived) {
		err = ErrReceiveBudget
	}
	if errors.Is(err, errTooLarge) {
		s.tooLarge(WebSocket, remote, int64(len(b)))
	}
	if err != nil {
		return false, nil, err
	}
	if cap(b) == len(buf) {
		b = bytes.Clone(b)
	}
	binary = opcode == websocket.BinaryMessage
	if !binary && !utf8.Valid(b) {
		return false, nil, errNotUTF8
	}
	return binary, b, nil
}

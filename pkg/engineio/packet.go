package engineio

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
)

// The packet types of Engine.IO, as digits, and the letter that begins a binary message in text.
const (
	typeOpen    = '0'
	typeClose   = '1'
	typePing    = '2'
	typePong    = '3'
	typeMessage = '4'
	typeUpgrade = '5'
	typeNoop    = '6'
	typeBinary  = 'b'
)

// WebSocket opcodes (RFC 6455, section 5.2) and bits of a frame's first byte.
const (
	opText   = 0x1
	opBinary = 0x2
	opClose  = 0x8
	opPong   = 0xA

	finBit  = 0x80
	rsv1Bit = 0x40

	maxFrameHeader = 10
)

// packetOverhead is the memory of a queued packet beside its frame, in bytes: the Packet itself,
// its pointer in the queue, and the allocator's overhead for a small frame.
const packetOverhead = 144

// A Packet is a message to send: encoded once, immutable, and safe to share by pointer between any
// number of connections.
type Packet struct {
	// frame is a complete unmasked WebSocket frame. The data after its header is the payload, which
	// for text is also the packet's polling form.
	frame      []byte
	header     uint8
	noCompress bool

	// queued is the number of connections of one server on which the packet is queued, if it is
	// large: it counts once there. On another server it counts for each connection.
	queued    atomic.Int32
	countedBy atomic.Pointer[counts]
	forms     atomic.Int64 // bytes of another form, which counts once, too

	// Forms that few connections need; the first connection that needs one creates it.
	base64   lazyFrame
	deflated lazyFrame
}

type lazyFrame struct {
	once  sync.Once
	frame []byte
}

func (l *lazyFrame) get(make func() []byte) []byte {
	l.once.Do(func() { l.frame = make() })
	return l.frame
}

// Text returns a packet that carries data as a text message. It copies data,
// which should be UTF-8.
func Text(data []byte) *Packet { return newPacket(opText, []byte{typeMessage}, data) }

// Binary returns a packet that carries data as a binary message. It copies data.
func Binary(data []byte) *Packet { return newPacket(opBinary, nil, data) }

// NoCompress returns the same packet, marked not to be compressed: neither by permessage-deflate,
// nor by HTTP unless it shares a response with packets that may be compressed.
func (p *Packet) NoCompress() *Packet {
	return &Packet{frame: p.frame, header: p.header, noCompress: true}
}

// Len returns the packet's size on a WebSocket, in bytes. In a queue it counts 144 more, its
// overhead in memory.
func (p *Packet) Len() int { return len(p.frame) }

// hold records that a large packet is queued on one more connection of a server. It returns the
// number of bytes by which the server's memory for packets grows.
func (p *Packet) hold(s *counts) int {
	if !p.countedBy.CompareAndSwap(nil, s) && p.countedBy.Load() != s || p.queued.Add(1) == 1 {
		return p.Len()
	}
	return 0
}

// release undoes hold after a connection has written the packet.
func (p *Packet) release(s *counts) int {
	if p.countedBy.Load() != s {
		return p.Len()
	}
	if p.queued.Add(-1) == 0 {
		return p.Len() + int(p.forms.Swap(0))
	}
	return 0
}

// countForm counts another form of the packet, which is queued on a connection of a server, if the packet
// counts once there.
func (p *Packet) countForm(s *counts, bytes int) bool {
	if p.Len() <= smallFrame || p.countedBy.Load() != s {
		return false
	}
	if p.forms.CompareAndSwap(0, int64(bytes)) {
		s.queued.Add(int64(bytes))
	}
	return true
}

// contains reports whether a form of the packet is its frame, or the end of it.
func (p *Packet) contains(form []byte) bool {
	return len(form) == 0 || &form[len(form)-1] == &p.frame[len(p.frame)-1]
}

// Packets that the protocol itself sends, shared by all connections.
var (
	pingPacket  = newPacket(opText, []byte{typePing}, nil)
	noopPacket  = newPacket(opText, []byte{typeNoop}, nil)
	closePacket = newPacket(opText, []byte{typeClose}, nil)
	probeAnswer = newPacket(opText, []byte{typePong}, []byte(probe))
	closeFrame  = newPacket(opClose, nil, nil)
)

const probe = "probe"

// closeFrameWith returns a WebSocket close frame with a status code.
func closeFrameWith(code int) *Packet {
	return newPacket(opClose, nil, binary.BigEndian.AppendUint16(nil, uint16(code)))
}

func newPacket(opcode byte, prefix, data []byte) *Packet {
	n := len(prefix) + len(data)
	b := appendFrameHeader(make([]byte, 0, frameHeaderLen(n)+n), finBit|opcode, n)
	header := len(b)
	b = append(b, prefix...)
	b = append(b, data...)
	return &Packet{frame: b, header: uint8(header)}
}

func (p *Packet) opcode() byte    { return p.frame[0] & 0x0F }
func (p *Packet) payload() []byte { return p.frame[p.header:] }

// polling returns the packet's form in the body of a polling response.
func (p *Packet) polling() []byte {
	if p.opcode() != opBinary {
		return p.payload()
	}
	f := p.base64Frame()
	return f[frameHeaderLen(1+base64.StdEncoding.EncodedLen(len(p.payload()))):]
}

// base64Frame returns a binary packet as a text frame.
func (p *Packet) base64Frame() []byte {
	return p.base64.get(func() []byte {
		return newPacket(opText, []byte{typeBinary}, base64.StdEncoding.AppendEncode(nil, p.payload())).frame
	})
}

// deflatedFrame returns the packet as a frame compressed by permessage-deflate, as RFC 7692 specifies
// for a message without context takeover: flushed, and without the flush's last four bytes.
func (p *Packet) deflatedFrame() []byte {
	return p.deflated.get(func() []byte {
		var out bytes.Buffer
		compress(flatePool, &out, &net.Buffers{p.payload()}, compressor.Flush)
		return newPacket(rsv1Bit|p.opcode(), nil, out.Bytes()[:out.Len()-len("\x00\x00\xff\xff")]).frame
	})
}

func frameHeaderLen(n int) int {
	switch {
	case n < 126:
		return 2
	case n < 1<<16:
		return 4
	default:
		return maxFrameHeader
	}
}

func appendFrameHeader(b []byte, first byte, n int) []byte {
	switch frameHeaderLen(n) {
	case 2:
		return append(b, first, byte(n))
	case 4:
		return binary.BigEndian.AppendUint16(append(b, first, 126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(b, first, 127), uint64(n))
	}
}

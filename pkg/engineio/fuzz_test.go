package engineio

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

// A script is the wire of a peer that has sent everything already, and ignores received
// data.
type script struct {
	net.Conn // nil: all methods in use are below

	mu     sync.Mutex
	rest   *bytes.Reader
	closed bool
	late   bool
}

func (s *script) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return 0, net.ErrClosed
	case s.late:
		return 0, os.ErrDeadlineExceeded
	}
	return s.rest.Read(p)
}

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	return len(p), nil
}

func (s *script) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

func (s *script) SetReadDeadline(at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = !at.IsZero() && time.Until(at) <= 0
	return nil
}

func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }

// The connection of a hijackable response is a script.
type hijackable struct {
	*httptest.ResponseRecorder
	wire *script
}

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.wire, bufio.NewReadWriter(bufio.NewReader(h.wire), bufio.NewWriter(io.Discard)), nil
}

const rsv1 = 0x40

// frame returns a frame as clients send it: masked.
func frame(first byte, payload []byte) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, finBit|byte(n))
	case n <= 0xFFFF:
		b = binary.BigEndian.AppendUint16(append(b, finBit|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, finBit|127), uint64(n))
	}
	mask := [4]byte{1, 2, 3, 0xFF}
	b = append(b, mask[:]...)
	for i, c := range payload {
		b = append(b, c^mask[i%4])
	}
	return b
}

// FuzzWebSocket: after any data from a peer the connection ends by itself, and received
// messages are within the limit and UTF-8. A message arrives unchanged in any number of
// frames.
func FuzzWebSocket(f *testing.F) {

	for _, frames := range [][]byte{
		nil,
		frame(finBit|opText, []byte("4hello")),
		frame(finBit|opBinary, []byte{0, 255}),
		frame(finBit|opText, []byte("bAQL/")),
		append(frame(opText, []byte("4hel")), append(frame(finBit|9, []byte("ping")), frame(finBit, []byte("lo"))...)...),
		frame(finBit|rsv1|opText, []byte{0x32, 0xc9, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00}), // "4hello", deflated
		frame(finBit|rsv1|opBinary, bytes.Repeat([]byte{0xed, 0xc1, 0x01}, 40)),
		frame(finBit|opText, []byte("4\xff")),
		frame(finBit|opText, bytes.Repeat([]byte("4"), 5000)),
		frame(finBit|8, []byte("\x03\xe8bye")),
		frame(finBit|8, []byte{3}),
		frame(finBit|9, bytes.Repeat([]byte("p"), 126)),
		frame(finBit, []byte("continues nothing")),
		frame(0x70|opText, nil),
		{finBit | opText, 1, '4'},                                                             // not masked
		{finBit | opBinary, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4}, // 2^64-1 bytes
		{finBit | opBinary, 0xFF, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4},                      // 1 GiB
		append(frame(finBit|opText, []byte("1")), frame(finBit|opText, []byte("4late"))...),
	} {
		f.Add(frames, true, uint8(3))
	}
	const limit = 4000
	got := make(chan Message, 1<<16)
	ends := make(chan error, 1)
	s, err := NewServer(Options{MaxPayload: limit, PerMessageDeflate: true, PingInterval: time.Hour}, func(c *Conn) {
		for {
			m, err := c.Recv()
			if err != nil {
				ends <- err
				return
			}
			got <- m
		}
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			f.Error(err)
		}
		if n := s.Stats().QueuedBytes; n != 0 {
			f.Errorf("%d bytes are still counted as queued, want 0", n)
		}
	})
	play := func(t *testing.T, frames []byte, deflate bool) (messages []Message) {
		r := httptest.NewRequest(http.MethodGet, "/engine.io/?EIO=4&transport=websocket", nil)
		for name, value := range map[string]string{
			"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13", "Sec-Websocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
		} {
			r.Header.Set(name, value)
		}
		if deflate {
			r.Header.Set("Sec-Websocket-Extensions", "permessage-deflate; client_no_context_takeover; server_no_context_takeover")
		}
		w := hijackable{httptest.NewRecorder(), &script{rest: bytes.NewReader(frames)}}
		s.ServeHTTP(w, r)
		select {
		case <-ends:
		case <-time.After(patience):
			t.Fatalf("%q: the connection is still open (%d)", frames, w.Code)
		}
		for len(got) > 0 {
			messages = append(messages, <-got)
		}
		return messages
	}
	f.Fuzz(func(t *testing.T, data []byte, deflate bool, size uint8) {
		for _, m := range play(t, data, deflate) {
			if len(m.Data) > limit || !m.Binary && !utf8.Valid(m.Data) {
				t.Errorf("%q brings a message of %d bytes, binary %v", data, len(m.Data), m.Binary)
			}
		}
		if len(data) > limit {
			return
		}
		frames := []byte{}
		op := byte(opBinary)
		for rest := data; ; {
			n := min(len(rest), max(int(size), 1))
			first := op
			if n == len(rest) {
				first |= finBit
			}
			frames = append(frames, frame(first, rest[:n])...)
			if rest = rest[n:]; len(rest) == 0 {
				break
			}
			op = 0
			frames = append(frames, frame(finBit|9, nil)...)
		}
		frames = append(frames, frame(finBit|opText, []byte("4end"))...)
		if m := play(t, frames, deflate); len(m) != 2 || !m[0].Binary || !bytes.Equal(m[0].Data, data) || string(m[1].Data) != "end" {
			t.Errorf("%q arrives as %v", data, m)
		}
	})
}

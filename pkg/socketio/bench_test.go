//go:build unix

package socketio

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/packet"
)

// cpuTime returns the CPU time that the process has used. Wall-clock time says little on a busy
// machine.
func cpuTime() time.Duration {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used) // cannot fail
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// measure runs f b.N times and reports the CPU time of each.
func measure(b *testing.B, f func()) {
	runtime.GC()
	b.ReportAllocs()
	b.ResetTimer()
	began := cpuTime()
	f()
	b.ReportMetric(float64(cpuTime()-began)/float64(b.N), "cpu-ns/op")
	b.StopTimer()
}

// BenchmarkEvent is the way of an event from the message that carries it to its handler, which
// decodes its arguments or publishes them to a room without members.
func BenchmarkEvent(b *testing.B) {
	text := `{"id":12345,"text":"` + strings.Repeat("hello, world ", 16) + `"}`
	for _, event := range []struct{ name, frame string }{
		{"bind", `2["chat",` + text + `,"lobby",42]`},
		{"forward", `2["to","lobby","chat",` + text + `,42]`},
		{"large", `2["to","lobby","chat",[` + strings.Repeat(`{"id":12345,"name":"somebody","tags":["a","b"]},`, 200) + `null]]`},
	} {
		b.Run(event.name, func(b *testing.B) {
			const window = 64 // events in flight
			handled, n := make(chan struct{}, 1), 0
			count := func() {
				if n++; n == b.N || n%window == 0 {
					handled <- struct{}{}
				}
			}
			node := start(b, Options{})
			node.On("chat", func(_ context.Context, e *Event) error {
				defer count()
				var message struct {
					ID   int
					Text string
				}
				var room string
				var number int
				return e.Bind(&message, &room, &number)
			})
			node.On("to", func(ctx context.Context, e *Event) error {
				defer count()
				var room, name string
				if err := e.Bind(&room, &name); err != nil {
					return err
				}
				return e.Socket().To(room).Emit(ctx, name, e.Rest(2)...)
			})
			node.OnConnect(func(s *Socket) { s.OnError(func(err error) { b.Error(err) }) })
			w := node.client(b)
			node.Server.mu.Lock()
			var c *client
			for _, c = range node.clients {
				break
			}
			node.Server.mu.Unlock()
			frame := []byte(event.frame)
			b.SetBytes(int64(len(frame)))
			var dec packet.Decoder
			measure(b, func() {
				for i := range b.N {
					must(b, c.receive(&dec, engineio.Message{Data: frame}))
					if i+1 == b.N || (i+1)%window == 0 {
						<-handled
					}
				}
			})
			w.cut()
		})
	}
}

// BenchmarkConnect is a connection of a WebSocket client that connects, disconnects and closes.
func BenchmarkConnect(b *testing.B) {
	payload := `{"token":"` + strings.Repeat("eyJhbGciOiJIUzI1NiJ9.", 16) + `"}`
	for _, mode := range []struct{ name, query string }{{"recovery", "recovery=true&"}, {"plain", ""}} {
		b.Run(mode.name, func(b *testing.B) {
			n := start(b, Options{})
			n.Use(func(_ context.Context, r *ConnectRequest) error {
				var auth struct{ Token string }
				return r.Auth(&auth)
			})
			addr := strings.TrimPrefix(n.url, "ws://")
			request := []byte("GET /socket.io/?" + mode.query + "EIO=4&transport=websocket HTTP/1.1\r\nHost: h\r\n" +
				"Connection: Upgrade\r\nUpgrade: websocket\r\n" +
				"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
			connect, leave := masked(0x81, "40"+payload), append(masked(0x81, "41"), masked(0x88, "\x03\xe8")...)
			in := bufio.NewReader(nil)
			measure(b, func() {
				for range b.N {
					conn, err := net.Dial("tcp", addr)
					must(b, err)
					in.Reset(conn)
					_, _ = conn.Write(request)
					for line := []byte{0}; len(bytes.TrimSpace(line)) > 0; {
						line, err = in.ReadSlice('\n')
						must(b, err)
					}
					skip(b, in) // the open packet
					_, _ = conn.Write(connect)
					skip(b, in)
					_, _ = conn.Write(leave)
					_, _ = io.Copy(io.Discard, in)
					_ = conn.Close()
				}
			})
		})
	}
}

// masked returns a frame of a WebSocket client with a mask of zeros.
func masked(head byte, payload string) []byte {
	b := []byte{head, 0x80 | byte(len(payload)), 0, 0, 0, 0}
	if n := len(payload); n > 125 {
		b = []byte{head, 0x80 | 126, byte(n >> 8), byte(n), 0, 0, 0, 0}
	}
	return append(b, payload...)
}

// skip reads a short frame of the server.
func skip(b *testing.B, in *bufio.Reader) {
	head, err := in.Peek(4)
	must(b, err)
	n := 2 + int(head[1])
	if head[1] == 126 {
		n = 4 + int(head[2])<<8 + int(head[3])
	}
	_, err = in.Discard(n)
	must(b, err)
}

package forward

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

const mebibyte = 1 << 20

// downstream opens a WebSocket through a node that does not own its session.
func downstream(t *testing.T, c *cluster) (*engineio.Conn, *websocket.Conn) {
	t.Helper()
	owner, near := c.nodes[0], c.nodes[1]
	sid := c.open(owner)
	conn := <-owner.conns
	narrow := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		return errors.Join(raw.Control(func(fd uintptr) {
			failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 64<<10)
		}), failed)
	}}
	ws, _, err := (&websocket.Dialer{NetDialContext: narrow.DialContext}).DialContext(t.Context(),
		"ws"+strings.TrimPrefix(near.public.URL, "http")+"/engine.io/?EIO=4&transport=websocket&sid="+sid, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	write(t, ws, "2probe")
	if got := read(t, ws); got != "3probe" {
		t.Fatalf(`probe answered by %q, want "3probe"`, got)
	}
	write(t, ws, "5")
	return conn, ws
}

// What is in the kernel's buffers of both nodes delays the next ping, which a client must have 20
// seconds after it was due. The buffers may have grown while the client was faster. Those of a client
// of the owner, and its own, hold 640 KiB.
func TestPingsOfAForwardedWebSocketAreNotFarBehind(t *testing.T) {
	const fast, size, most = 32 * mebibyte, 16 << 10, mebibyte // bytes
	c := setUp(t, 2, nil)
	owner := c.nodes[0]
	conn, ws := downstream(t, c)
	message := engineio.Text(bytes.Repeat([]byte("x"), size))
	written := func() bool { // whether it has left the send queue, after a while
		if err := conn.Send(message); err != nil {
			t.Fatal(err)
		}
		for begin := time.Now(); time.Since(begin) < time.Second; time.Sleep(100 * time.Microsecond) {
			if owner.engine.Stats().QueuedBytes == 0 {
				return true
			}
		}
		return false
	}
	go func() { // until all is read
		for range fast / size {
			written()
		}
	}()
	begin := time.Now()
	for range fast / size {
		if _, _, err := ws.ReadMessage(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%.0f MiB/s", fast/mebibyte/time.Since(begin).Seconds())
	buffered := 0 // from now on it reads nothing
	for written() {
		buffered += size
	}
	t.Logf("%d bytes are in the buffers", buffered)
	if buffered > most {
		t.Errorf("%d bytes are in the buffers, want at most %d", buffered, most)
	}
}

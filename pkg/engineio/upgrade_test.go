package engineio

import (
	"github.com/gorilla/websocket"
)

// upgrade moves a polling session to a WebSocket.
func (b *bench) upgrade(sid string) *websocket.Conn {
	b.Helper()
	ws := b.dial("&sid=" + sid)
	b.write(ws, "2probe")
	if got := b.read(ws); got != "3probe" {
		b.Fatalf("probe answered by %q", got)
	}
	b.write(ws, "5")
	c := b.lookup(sid)
	b.until(func() bool { return c.Transport() == WebSocket })
	return ws
}

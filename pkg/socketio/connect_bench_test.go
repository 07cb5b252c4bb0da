package socketio

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/rejoin-io/rejoin/pkg/packet"
)

// BenchmarkConnectPacket measures a CONNECT from its packet to the end of OnConnect, and the disconnect.
func BenchmarkConnectPacket(b *testing.B) {
	for name, use := range map[string]func(context.Context, *ConnectRequest) error{
		"without middlewares": nil,
		"with a middleware": func(_ context.Context, r *ConnectRequest) error {
			r.SetUser("ann")
			r.KeepRooms(func(string) bool { return true })
			return r.Join("user:ann", "lobby")
		},
	} {
		b.Run(name, func(b *testing.B) {
			srv, err := NewServer(Options{})
			if err != nil {
				b.Fatal(err)
			}
			connected, ended := make(chan *Socket), make(chan Reason)
			if use != nil {
				srv.Use(use)
			}
			srv.OnConnect(func(s *Socket) {
				s.OnDisconnect(func(r Reason) { ended <- r })
				connected <- s
			})
			web := httptest.NewServer(srv)
			ws, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(web.URL, "http")+"/socket.io/?recovery=true&EIO=4&transport=websocket", nil)
			if err != nil {
				b.Fatal(err)
			}
			read := make(chan struct{})
			go func() {
				defer close(read)
				for {
					if _, _, err := ws.NextReader(); err != nil {
						return
					}
				}
			}()
			var c *client
			for c == nil {
				srv.mu.Lock()
				for _, c = range srv.clients {
				}
				srv.mu.Unlock()
			}
			p := &packet.Packet{Type: packet.Connect, Namespace: "/", Data: json.RawMessage(`{"token":"0123456789"}`)}
			b.ReportAllocs()
			for b.Loop() {
				c.connects = time.Time{} // the rate is not limited
				c.connect(p)
				(<-connected).end(ClientDisconnect)
				<-ended
			}
			_ = ws.Close()
			<-read
			_ = srv.Close(b.Context())
			web.Close()
		})
	}
}

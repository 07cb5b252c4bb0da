package front

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// A client with the MessagePack parser is told that it cannot connect, and does
// not try again; the log says so once.
func TestMessagePackClient(t *testing.T) {
	seen, logs := observer.New(zap.WarnLevel)
	web := httptest.NewServer(newServer(t, engineio.Options{}, zap.New(seen)))
	defer web.Close()
	for _, transport := range []string{"polling", "websocket"} {
		lines := runClient(t, web.URL, transport, "/socket.io/", "msgpack")
		if len(lines) != 1 || !strings.Contains(lines[0].Error, "MessagePack") || lines[0].Active {
			t.Errorf("%s: %+v", transport, lines)
		}
	}
	if n := logs.Len(); n != 1 || !strings.Contains(logs.All()[0].Message, "MessagePack") {
		t.Errorf("logged %+v", logs.All())
	}
}

// A message that is too large ends the client's connection, and it comes back. The
// log and the numbers say so.
func TestOversizeMessage(t *testing.T) {
	for _, transport := range []string{"polling", "websocket"} {
		t.Run(transport, func(t *testing.T) {
			seen, logs := observer.New(zap.WarnLevel)
			srv := newServer(t, engineio.Options{MaxPayload: 1000}, zap.New(seen))
			reasons := make(chan socketio.Reason, 10)
			srv.OnConnect(func(s *socketio.Socket) { s.OnDisconnect(func(r socketio.Reason) { reasons <- r }) })
			web := httptest.NewServer(srv)
			defer web.Close()
			lines := runClient(t, web.URL, transport, "/socket.io/", "oversize")
			want := map[string]string{"polling": "transport error", "websocket": "transport close"}[transport]
			if len(lines) != 3 || lines[1].Disconnect != want || lines[2].Connect != 2 {
				t.Errorf("%+v", lines)
			}
			if logs.FilterMessage("message exceeds the maximum payload").Len() != 1 || srv.Stats().Engine.TooLarge != 1 {
				t.Errorf("logged %+v, counted %d", logs.All(), srv.Stats().Engine.TooLarge)
			}
			select { // it may come after the client's end
			case got := <-reasons:
				if transport == "websocket" && got != "transport error" {
					t.Errorf("OnDisconnect got %v", got)
				}
			case <-time.After(patience):
				t.Error("OnDisconnect is not called")
			}
		})
	}
}

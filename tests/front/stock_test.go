package front

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// A client with the MessagePack parser gets a connect error and does not retry;
// the log reports it once.
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

// A message that is too large ends the client's connection, and it reconnects. The
// log and the metrics report it.
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

// TestBusyHandler: a stock client that sends more than fits into its mailbox is not
// disconnected, although its pongs are not read in time. It closes the connection by
// itself if it gets no ping for the ping interval and timeout.
func TestBusyHandler(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"websocket", "polling"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			srv, err := socketio.NewServer(socketio.Options{
				Engine:        engineio.Options{PingInterval: 500 * time.Millisecond, PingTimeout: time.Second},
				MailboxEvents: 8,
			})
			if err != nil {
				t.Fatal(err)
			}
			closeAtEnd(t, srv)
			srv.OnConnect(func(s *socketio.Socket) {
				handled := 0
				s.On("work", func(ctx context.Context, e *socketio.Event) error {
					time.Sleep(10 * time.Millisecond) // all together take longer than the client waits for a ping
					var i int
					if err := e.Bind(&i); err != nil || i != handled {
						t.Errorf("handled %d, want %d: %v", i, handled, err)
					}
					if handled++; handled == 300 {
						return s.Emit(ctx, "done", "all")
					}
					return nil
				})
			})
			web := httptest.NewServer(srv)
			t.Cleanup(web.Close)
			lines := runClient(t, web.URL, transport, "/socket.io/", "busy")
			if n := len(lines); n != 2 || lines[1].Echo != "all" {
				t.Errorf("the client reported %+v", lines)
			}
			if srv.Stats().MailboxFull["events"] == 0 {
				t.Error("the mailbox was never full")
			}
		})
	}
}

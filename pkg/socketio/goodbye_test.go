package socketio

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// A polling client that closes the connection behind many events, all of them in answered
// POSTs, has them all handled, as on a WebSocket.
func TestEventsBeforeAGoodbyeByPolling(t *testing.T) {
	for name, bodies := range map[string]func(events string) []string{
		"one body":       func(events string) []string { return []string{events + "\x1e41\x1e1"} },
		"several bodies": func(events string) []string { return []string{events, "41", "1"} },
		"only the close": func(events string) []string { return []string{events + "\x1e1"} },
	} {
		t.Run(name, func(t *testing.T) {
			const events = 500
			n := start(t, Options{MailboxEvents: 4})
			proceed := make(chan struct{})
			ended := make(chan Reason, 1)
			handled := 0 // by one goroutine
			n.OnConnect(func(s *Socket) { s.OnDisconnect(func(r Reason) { ended <- r }) })
			n.On("e", func(context.Context, *Event) error {
				<-proceed
				handled++
				return nil
			})
			post := n.poll(t)
			var packets []string
			for i := range events {
				packets = append(packets, fmt.Sprintf(`42["e",%d]`, i))
			}
			for _, body := range bodies(strings.Join(packets, "\x1e")) {
				post(body)
			}
			close(proceed)
			want := ClientDisconnect
			if name == "only the close" {
				want = TransportClose
			}
			if got := receive(t, ended); got != want {
				t.Errorf("ended by %q, want %q", got, want)
			}
			if handled != events {
				t.Errorf("handled %d of %d events", handled, events)
			}
		})
	}
}

package socketio

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// A polling client closes the connection behind more events than its mailbox holds, all of
// them in answered POSTs. All are handled, as on a WebSocket, also if the client disconnects
// immediately. With 5 events its reader holds the last one.
func TestEventsBeforeACloseByPolling(t *testing.T) {
	for name, bodies := range map[string]func(events string) []string{
		"one body":       func(events string) []string { return []string{events + "\x1e41\x1e1"} },
		"several bodies": func(events string) []string { return []string{events, "41", "1"} },
		"only the close": func(events string) []string { return []string{events + "\x1e1"} },
		"a late close":   func(events string) []string { return []string{events, "1"} },
	} {
		for _, events := range []int{4, 5, 6, 500} {
			for _, leaves := range []bool{false, true} {
				t.Run(fmt.Sprint(name, " behind ", events, ", leaves ", leaves), func(t *testing.T) {
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
					post, leave := n.poll(t)
					var packets []string
					for i := range events {
						packets = append(packets, fmt.Sprintf(`42["e",%d]`, i))
					}
					for i, body := range bodies(strings.Join(packets, "\x1e")) {
						if i > 0 && events > 5 { // one of five may be handled already
							eventually(t, "the mailbox is full", func() bool { return n.Stats().MailboxFull["events"] > 0 })
						}
						post(body)
					}
					if leaves {
						leave()
					}
					close(proceed)
					want := ClientDisconnect
					if strings.HasSuffix(name, "close") {
						want = TransportClose
					}
					if got := receive(t, ended); got != want {
						t.Errorf("ended by %q, want %q", got, want)
					}
					if handled != events {
						t.Errorf("handled %d of %d events, want %d", handled, events, events)
					}
				})
			}
		}
	}
}

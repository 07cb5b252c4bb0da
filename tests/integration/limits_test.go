package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestHandshakeRate: clients beyond the rate get 503 with Retry-After, and
// stock clients retry, on both transports.
func TestHandshakeRate(t *testing.T) {
	t.Parallel()
	n := startNode(t, "REJOIN_HANDSHAKE_RATE=3")
	d := startDriver(t)
	var clients []*npmSocket
	for i := range 4 {
		for name, options := range transports {
			clients = append(clients, d.opening(fmt.Sprint(name, i), newest, n.url(), options))
		}
	}
	for _, s := range clients {
		s.await("connect")
		s.call("self", "hello")
	}
	if n := n.metrics()[`rejoin_limited_total{limit="handshake_rate"}`]; n == 0 {
		t.Error("no client was refused, or the refusal was not counted")
	}

	for _, upgrade := range []bool{false, true} {
		eventually(t, "nobody is refused", func() error {
			r, err := http.NewRequestWithContext(t.Context(), "GET", n.url()+"/socket.io/?EIO=4&transport=polling", nil)
			if err != nil {
				return err
			}
			if upgrade {
				r.URL.RawQuery = "EIO=4&transport=websocket"
				r.Header = http.Header{
					"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
					"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
				}
			}
			res, err := internalHTTP.Do(r)
			if err != nil {
				return err
			}
			res.Body.Close()
			if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") != "1" || !res.Close {
				return fmt.Errorf("%s, Retry-After %q", res.Status, res.Header.Get("Retry-After"))
			}
			return nil
		})
	}
}

// TestEventRate: events beyond the rate are dropped and acked so, each socket
// has its own rate, and a little later its events are accepted again.
func TestEventRate(t *testing.T) {
	t.Parallel()
	n := startNode(t, "REJOIN_SOCKET_EVENT_RATE=5", "REJOIN_SOCKET_BYTE_RATE=100", "REJOIN_MAX_PAYLOAD=2KiB")
	d := startDriver(t)
	s, other := d.open("a", newest, n.url(), nil), d.open("b", newest, n.url(), nil)
	s.call("join", "room")
	refused := func(args ...any) (reply, bool) {
		for range 100 {
			if r := s.try(args...); !r.OK {
				return r, true
			}
		}
		return reply{}, false
	}
	if r, ok := refused("join", "room"); !ok || r.Code != "rate_limited" || r.Message != "too many events of this socket; this one was dropped" {
		t.Errorf("events: %+v", r)
	}
	other.call("join", "room")
	eventually(t, "it does not end", func() error {
		if r := s.try("join", "room"); !r.OK {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	large := strings.Repeat("x", 500)
	eventually(t, "bytes are not limited", func() error {
		if r := s.try("to", "nobody", "x", large); r.Message != "too many bytes of this socket; this one was dropped" {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	m := n.metrics()
	for _, limit := range []string{"socket_event_rate", "socket_byte_rate"} {
		if m[`rejoin_limited_total{limit="`+limit+`"}`] == 0 {
			t.Errorf("%s is not counted", limit)
		}
	}
}

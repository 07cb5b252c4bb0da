package integration

import (
	"fmt"
	"net/http"
	"testing"
)

// TestHandshakeRate: who is one too many is told so and when to come again, and
// stock clients do, on both transports.
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
		t.Error("nobody was refused, or it was not counted")
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

package limit

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func request(addr string) *http.Request { return &http.Request{RemoteAddr: addr} }

// admitted asks n times, and returns how often the answer was yes and the last
// refusal.
func admitted(h *Handshakes, n int, addr string) (yes int, no *engineio.BusyError) {
	for range n {
		_, err := h.Admit(request(addr))
		if err == nil {
			yes++
		}
		errors.As(err, &no)
	}
	return yes, no
}

func TestHandshakeRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHandshakes(HandshakeOptions{Rate: 100})
		yes, no := admitted(h, 250, "127.0.0.1:1")
		if yes != 100 || no == nil || no.Status != 0 || no.RetryAfter != time.Second {
			t.Errorf("%d are admitted at once, the others %+v", yes, no)
		}
		time.Sleep(500 * time.Millisecond)
		if yes, _ := admitted(h, 100, "127.0.0.1:1"); yes != 50 {
			t.Errorf("%d are admitted half a second later", yes)
		}
		if n := h.Refused()[HandshakeRate]; n != 200 {
			t.Errorf("%d are counted", n)
		}
	})
}

func TestNoHandshakeRate(t *testing.T) {
	if yes, _ := admitted(NewHandshakes(HandshakeOptions{}), 100_000, "127.0.0.1:1"); yes != 100_000 {
		t.Errorf("%d are admitted", yes)
	}
}

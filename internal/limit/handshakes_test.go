package limit

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func request(addr string) *http.Request { return &http.Request{RemoteAddr: addr} }

// admitted calls Admit n times, and returns the number of admissions and the last refusal.
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
			t.Errorf("admitted %d in a burst, the others %+v", yes, no)
		}
		time.Sleep(500 * time.Millisecond)
		if yes, _ := admitted(h, 100, "127.0.0.1:1"); yes != 50 {
			t.Errorf("%d are admitted half a second later, want 50", yes)
		}
		if n := h.o.Tally.Refused()[HandshakeRate]; n != 200 {
			t.Errorf("%d are counted, want 200", n)
		}
	})
}

func TestNoHandshakeRate(t *testing.T) {
	if yes, _ := admitted(NewHandshakes(HandshakeOptions{}), 100_000, "127.0.0.1:1"); yes != 100_000 {
		t.Errorf("%d are admitted, want 100_000", yes)
	}
}

func TestIPLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHandshakes(HandshakeOptions{Rate: 1000, IPRate: 1})
		yes, no := admitted(h, 20, "192.0.2.1:1")
		if yes != 10 || no.Status != http.StatusTooManyRequests || no.RetryAfter != time.Second {
			t.Errorf("%d, then %+v", yes, no)
		}
		for _, test := range []struct {
			addr string
			want int
		}{
			{"192.0.2.1", 0},
			{"[::ffff:192.0.2.1]:7", 0},
			{"192.0.2.2:1", 10},
			{"[2001:db8::1]:1", 10},
			{"[2001:db8::ffff:2]:1", 0}, // the same network
			{"[2001:db8:0:1::1]:1", 10},
			{"127.0.0.1:1", 20},
			{"[::1]:1", 20},
			{"10.1.2.3:1", 20}, // a load balancer may have it
			{"100.64.0.1:1", 20},
			{"[fd00::1]:1", 20},
		} {
			if yes, _ := admitted(h, 20, test.addr); yes != test.want {
				t.Errorf("%s: %d, want %d", test.addr, yes, test.want)
			}
		}
		time.Sleep(time.Second)
		if yes, _ := admitted(h, 10, "192.0.2.1:1"); yes != 1 {
			t.Errorf("got %d a second later, want 1", yes)
		}
		h = NewHandshakes(HandshakeOptions{IPRate: 1, Proxies: Proxies{Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}})
		if yes, _ := admitted(h, 20, "192.168.1.1:1"); yes != 10 {
			t.Errorf("%d of a private network, where the proxies are known, want 10", yes)
		}
		if yes, _ := admitted(h, 20, "127.0.0.1:1"); yes != 20 {
			t.Errorf("%d of loopback, where the proxies are known, want 20", yes)
		}
	})
}

// Connections count until they end; those that the node refuses for another
// reason do not.
func TestIPConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHandshakes(HandshakeOptions{Rate: 3, IPConnections: 2})
		var ends []func()
		for range 2 {
			ended, err := h.Admit(request("192.0.2.1:1"))
			if err != nil {
				t.Fatal(err)
			}
			ends = append(ends, ended)
		}
		if yes, no := admitted(h, 1, "192.0.2.1:1"); yes != 0 || no.Status != http.StatusTooManyRequests {
			t.Errorf("admitted %d, refused with %+v, want 0 and 429", yes, no)
		}
		if yes, no := admitted(h, 2, "192.0.2.2:1"); yes != 1 || no.Status != 0 {
			t.Errorf("admitted %d, refused with %+v, want 1 and 503", yes, no)
		}
		time.Sleep(time.Second)
		if yes, _ := admitted(h, 2, "192.0.2.2:1"); yes != 1 {
			t.Errorf("admitted %d, want 1: a refused connection counts as open", yes)
		}
		ends[0]()
		if yes, _ := admitted(h, 2, "192.0.2.1:1"); yes != 1 {
			t.Errorf("%d after one has ended, want 1", yes)
		}
		if n := h.o.Tally.Refused(); n[IPConnections] != 3 || n[HandshakeRate] != 1 {
			t.Errorf("%v", n)
		}
	})
}

// Connections of any address count until they end. Refused ones do not.
func TestSessions(t *testing.T) {
	h := NewHandshakes(HandshakeOptions{Sessions: 2, IPConnections: 1})
	var ends []func()
	for _, addr := range []string{"127.0.0.1:1", "10.0.0.1:1"} { // others' limits do not apply to them
		ended, err := h.Admit(request(addr))
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, ended)
	}
	for range 3 {
		if yes, no := admitted(h, 1, "192.0.2.1:1"); yes != 0 || no.Status != 0 || no.RetryAfter != time.Second {
			t.Errorf("admitted %d, refused with %+v, want 0 and 503 after a second", yes, no)
		}
	}
	ends[0]()
	if yes, no := admitted(h, 2, "192.0.2.1:1"); yes != 1 || no.Status != http.StatusTooManyRequests {
		t.Errorf("%d after one has ended, then %+v", yes, no)
	}
	if n := h.o.Tally.Refused(); n[Sessions] != 3 || n[IPConnections] != 1 {
		t.Errorf("%v", n)
	}
}

// An address can have at most as many connections as are left to others, regardless of its own
// limit. Addresses that are not limited can use all of them.
func TestAddressesLeaveConnections(t *testing.T) {
	h := NewHandshakes(HandshakeOptions{Sessions: 1000, IPConnections: 5000})
	for i, want := range []int{500, 250, 125, 63, 31} { // 63: 62 leave 63
		addr := fmt.Sprintf("192.0.2.%d:1", i)
		if yes, no := admitted(h, 1000, addr); yes != want || no.Status != http.StatusTooManyRequests {
			t.Errorf("%d connections of address %d, then %+v; want %d", yes, i, no, want)
		}
	}
	if yes, _ := admitted(h, 1, "198.51.100.1:1"); yes != 1 {
		t.Error("an address without connections is refused")
	}
	if yes, no := admitted(h, 1000, "127.0.0.1:1"); yes != 30 || no.Status != 0 {
		t.Errorf("%d connections of loopback, then %+v", yes, no)
	}
}

// The URL of a handshake counts, too.
func TestURLBytes(t *testing.T) {
	h := NewHandshakes(HandshakeOptions{HeaderBytes: 20 << 10})
	r := request("127.0.0.1:1")
	r.RequestURI = "/socket.io/?x=" + strings.Repeat("u", 10<<10)
	if _, err := h.Admit(r); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Admit(r); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Admit(r); err == nil {
		t.Error("the URLs are not counted")
	}
}

// Large headers are kept as long as their connections, so they are limited together. Headers as
// browsers send them always pass.
func TestHeaderBytes(t *testing.T) {
	h := NewHandshakes(HandshakeOptions{HeaderBytes: 20 << 10})
	admit := func(bytes int) (ended func(), err error) {
		r := request("127.0.0.1:1")
		r.Header = http.Header{"Cookie": {strings.Repeat("c", bytes)}}
		return h.Admit(r)
	}
	var ends []func()
	for {
		ended, err := admit(10 << 10)
		if err != nil {
			break
		}
		ends = append(ends, ended)
	}
	if len(ends) != 2 {
		t.Errorf("got %d connections, want 2", len(ends))
	}
	for range 100 {
		if _, err := admit(freeHeaders - 100); err != nil {
			t.Fatal(err)
		}
	}
	ends[0]()
	if _, err := admit(10 << 10); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
	if n := h.o.Tally.Refused(); n[HeaderBytes] != 1 {
		t.Errorf("%v", n)
	}
}

// However large the headers of an address may be, it leaves as much to others as it has.
func TestAddressesLeaveHeaderBytes(t *testing.T) {
	h := NewHandshakes(HandshakeOptions{HeaderBytes: 80 << 10, IPConnections: 5000})
	admit := func(addr string) (ended func(), err error) {
		r := request(addr)
		r.RequestURI = strings.Repeat("u", freeHeaders+10<<10)
		return h.Admit(r)
	}
	var ends []func()
	for i, want := range []int{4, 2, 1} {
		addr := fmt.Sprintf("192.0.2.%d:1", i)
		for range want {
			ended, err := admit(addr)
			if err != nil {
				t.Fatalf("%s: %v", addr, err)
			}
			ends = append(ends, ended)
		}
		_, err := admit(addr)
		if no := (*engineio.BusyError)(nil); !errors.As(err, &no) || no.Status != http.StatusTooManyRequests {
			t.Errorf("%s: after %d connections with large headers %v", addr, want, err)
		}
		if _, err := h.Admit(request(addr)); err != nil {
			t.Errorf("%s: without large headers: %v", addr, err)
		}
	}
	if _, err := admit("198.51.100.1:1"); err != nil {
		t.Errorf("an address without connections: %v", err)
	}
	for _, ended := range ends {
		ended()
	}
	if _, err := admit("192.0.2.0:1"); err != nil {
		t.Errorf("after its connections have ended: %v", err)
	}
	if n := h.o.Tally.Refused()[HeaderBytes]; n != 3 {
		t.Errorf("%d are counted, want 3", n)
	}
}

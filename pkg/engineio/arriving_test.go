package engineio

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

// incomplete sends the beginning of a text message of a million bytes on a WebSocket.
func incomplete(wire net.Conn, bytes int) {
	fmt.Fprint(wire, "\x81\xff\x00\x00\x00\x00\x00\x0f\x42\x3f\x00\x00\x00\x004"+strings.Repeat("x", bytes-1))
}

func givenUp(c *Conn) bool {
	cause := c.cause()
	return cause != nil && errors.Is(cause, ErrReceiveBudget)
}

// Messages and bodies whose end does not arrive have a common budget.
func TestIncompleteMessagesHaveABudget(t *testing.T) {
	b := setUp(t, Options{ReceiveBudget: 1 << 20, MaxPayload: 1_000_000, PingInterval: time.Minute})
	receiving := func(n int64) {
		t.Helper()
		b.until(func() bool { return b.Stats().ReceivingBytes == n })
	}
	var conns []*Conn
	dial := func(bytes int) *Conn {
		wire, c := b.dialStalled()
		incomplete(wire, bytes)
		conns = append(conns, c)
		return c
	}
	small := dial(smallArrival / 2)
	first := dial(200 << 10)
	receiving(256 << 10)
	sid := b.open()
	posting := receive(t, b.conns)
	body := b.wire(fmt.Sprintf("POST /engine.io/?EIO=4&transport=polling&sid=%s HTTP/1.1\nHost: h\nContent-Length: 999999\n\n4%s", sid, strings.Repeat("y", 400<<10)))
	receiving(256<<10 + 512<<10)
	dial(200 << 10)
	receiving(1 << 20)
	if b.Stats().ReceiveCuts != 0 {
		t.Fatal("one is given up within the budget")
	}
	for i := range 30 { // the later ones are about as fast, so they give way, and those before them get slower
		dial(200 << 10)
		b.until(func() bool { return b.Stats().ReceiveCuts > uint64(i) && b.Stats().ReceivingBytes <= 1<<20 })
	}
	b.arriving.mu.Lock()
	for a := range b.arriving.open {
		a.began = a.began.Add(-time.Hour) // the others are much slower now
	}
	b.arriving.mu.Unlock()
	last := dial(500 << 10)
	b.until(func() bool { return b.Stats().ReceivingBytes >= 512<<10 && givenUp(first) || givenUp(last) })
	if givenUp(last) || givenUp(small) {
		t.Errorf("given up: %v, %v; a fast one and a small one", givenUp(last), givenUp(small))
	}
	more := dial(500 << 10)
	b.until(func() bool { return givenUp(posting) })
	if givenUp(more) {
		t.Error("a fast one is given up")
	}
	answer := make([]byte, 1000)
	_ = body.SetReadDeadline(time.Now().Add(patience))
	if n, err := body.Read(answer); err != nil || !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 400") {
		t.Errorf("the answer to the body is %q, %v", answer[:n], err)
	}
	for _, c := range conns {
		_ = c.Close(ForcedClose)
	}
	receiving(0)
}

// Small messages count, too: a node has thousands of connections.
func TestSmallIncompleteMessagesCount(t *testing.T) {
	b := setUp(t, Options{PingInterval: time.Minute})
	for range 10 {
		wire, _ := b.dialStalled()
		incomplete(wire, 5<<10)
	}
	b.until(func() bool { return b.Stats().ReceivingBytes == 10*8<<10 })
}

// A message that is larger than everything that is incomplete may take is given up itself, and one that
// is complete counts no longer.
func TestTheIncompleteMessageItselfIsGivenUp(t *testing.T) {
	b := setUp(t, Options{ReceiveBudget: 100_000, MaxPayload: 1_000_000})
	ws, _ := b.dialOpen()
	for range 3 { // each has its turn
		b.write(ws, "4"+strings.Repeat("x", 50_000))
		if m := receive(t, b.got); len(m.Data) != 50_000 {
			t.Fatalf("%d bytes arrive", len(m.Data))
		}
	}
	wire, other := b.dialStalled()
	incomplete(wire, 200_000)
	b.until(func() bool { return givenUp(other) })
	b.until(func() bool { return b.Stats().ReceivingBytes == 0 })
	b.write(ws, "4still there")
	b.gets("still there", false)
}

// silent is a receiver whose message is never read.
type silent struct{}

func (silent) interrupt() {}

func (silent) progress() {}

// Which messages are given up: what was sent fast and is held back after that gives way to what comes
// steadily, and of steady ones those that have begun last give way.
func TestWhichMessagesAreGivenUp(t *testing.T) {
	type message struct {
		bytes int
		age   time.Duration
	}
	for name, test := range map[string]struct {
		messages []message
		budget   int
		want     []int // that are given up
	}{
		"those that began last": {
			[]message{{800 << 10, 9 * time.Second}, {400 << 10, 4 * time.Second}, {200 << 10, time.Second}, {90 << 10, 10 * time.Millisecond}},
			1200 << 10, []int{2, 3},
		},
		"a held one":     {[]message{{540 << 10, 20 * time.Second}, {120 << 10, time.Second}, {120 << 10, time.Second / 2}}, 300 << 10, []int{0}},
		"held ones":      {[]message{{990 << 10, time.Minute}, {990 << 10, time.Minute}, {64 << 10, 0}}, 1100 << 10, []int{0}},
		"all that holds": {[]message{{990 << 10, time.Minute}, {990 << 10, time.Minute + 1}, {64 << 10, 0}}, 64 << 10, []int{0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			all := &arrivals{budget: 1 << 40, log: zap.NewNop()}
			var list []*arrival
			for _, m := range test.messages {
				a := &arrival{from: silent{}, began: time.Now().Add(-m.age)}
				all.grow(a, m.bytes)
				list = append(list, a)
			}
			all.mu.Lock()
			all.budget = test.budget
			all.shed()
			all.mu.Unlock()
			var got []int
			for i, a := range list {
				if a.givenUp {
					got = append(got, i)
				}
			}
			if name == "held ones" { // either one
				if len(got) != 1 || got[0] == 2 {
					t.Errorf("given up: %v", got)
				}
			} else if !slices.Equal(got, test.want) {
				t.Errorf("given up: %v, want %v", got, test.want)
			}
			for _, a := range list {
				if err := all.done(a, io.EOF); a.givenUp != errors.Is(err, ErrReceiveBudget) {
					t.Errorf("it ends with %v", err)
				}
			}
			if n := all.bytes.Load(); n != 0 {
				t.Errorf("%d bytes are still counted", n)
			}
		})
	}
}

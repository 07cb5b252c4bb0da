package engineio

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
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

// hold makes messages look as if nothing of them had come for some time.
func (all *arrivals) hold(d time.Duration) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for a := range all.open {
		a.fades.Store(math.Float64bits(math.Float64frombits(a.fades.Load()) - d.Seconds()))
	}
}

func givenUp(c *Conn) bool {
	cause := c.cause()
	return cause != nil && errors.Is(cause, ErrReceiveBudget)
}

// Incomplete messages and bodies have a common budget.
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
	for i := range 30 { // the later ones are about as fast, so they are given up, and the earlier ones get slower
		dial(200 << 10)
		b.until(func() bool { return b.Stats().ReceiveCuts > uint64(i) && b.Stats().ReceivingBytes <= 1<<20 })
	}
	b.arriving.hold(time.Hour) // the others are much slower now
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

// Messages that came fast and are held back since then give way to those that begin, although a byte of
// them comes now and then.
func TestHeldBackMessagesGiveWay(t *testing.T) {
	b := setUp(t, Options{ReceiveBudget: 2 << 20, MaxPayload: 1_000_000, PingInterval: time.Minute})
	var held []net.Conn
	for range 2 {
		wire, _ := b.dialStalled()
		incomplete(wire, 530_000)
		held = append(held, wire)
	}
	b.until(func() bool { return b.Stats().ReceivingBytes == 2<<20 })
	b.arriving.hold(20 * time.Second)
	for _, wire := range held {
		fmt.Fprint(wire, "x")
	}
	ws, _ := b.dialOpen()
	b.write(ws, "4"+strings.Repeat("x", 100_000))
	if m := receive(t, b.got); len(m.Data) != 100_000 {
		t.Errorf("%d bytes arrive, want 100_000", len(m.Data))
	}
	if n := b.Stats().ReceiveCuts; n != 1 {
		t.Errorf("%d messages are given up, want 1", n)
	}
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

// An incomplete message that alone exceeds the budget is given up, and a complete one no longer counts.
func TestIncompleteMessageAboveTheBudgetIsGivenUp(t *testing.T) {
	b := setUp(t, Options{ReceiveBudget: 100_000, MaxPayload: 1_000_000})
	ws, _ := b.dialOpen()
	for range 3 { // each has its turn
		b.write(ws, "4"+strings.Repeat("x", 50_000))
		if m := receive(t, b.got); len(m.Data) != 50_000 {
			t.Fatalf("%d bytes arrive, want 50_000", len(m.Data))
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

// Messages that were sent fast and are then held back are given up before steady ones. Of steady ones
// those that have begun last are given up, but large ones leave a part of the budget to others.
func TestWhichMessagesAreGivenUp(t *testing.T) {
	type message struct {
		bytes    int
		age      time.Duration
		heldBack time.Duration // and nothing has come since then
	}
	for name, test := range map[string]struct {
		messages []message
		budget   int
		want     []int // that are given up
		most     int   // for large ones; 0 is no limit
	}{
		"those that began last": {
			[]message{{800 << 10, 9 * time.Second, 0}, {400 << 10, 4 * time.Second, 0}, {180 << 10, time.Second, 0}, {90 << 10, 10 * time.Millisecond, 0}},
			1200 << 10, []int{2, 3}, 0,
		},
		"a slow one":       {[]message{{540 << 10, 20 * time.Second, 0}, {120 << 10, time.Second, 0}, {120 << 10, time.Second / 2, 0}}, 300 << 10, []int{0}, 0},
		"a held one":       {[]message{{540 << 10, 9 * time.Second, 8 * time.Second}, {540 << 10, 9 * time.Second, 0}, {8 << 10, 0, 0}}, 1080 << 10, []int{0}, 0},
		"held ones":        {[]message{{990 << 10, time.Minute, 59 * time.Second}, {990 << 10, time.Minute, 59 * time.Second}, {64 << 10, 0, 0}}, 1100 << 10, []int{0}, 0},
		"all that is held": {[]message{{990 << 10, time.Minute, 59 * time.Second}, {990 << 10, time.Minute + 1, 59 * time.Second}, {64 << 10, 0, 0}}, 64 << 10, []int{0, 1}, 0},
		"a large one that is slow": {
			[]message{{512 << 10, time.Minute, 0}, {512 << 10, time.Minute + time.Second, 0}, {8 << 10, 0, 0}},
			1060 << 10, []int{0}, 1000 << 10,
		},
		"large ones that are fast": {
			[]message{{512 << 10, time.Second, 0}, {512 << 10, time.Second / 2, 0}, {8 << 10, time.Minute, 0}},
			1060 << 10, []int{1}, 1000 << 10,
		},
	} {
		t.Run(name, func(t *testing.T) {
			all := &arrivals{budget: 1 << 40, most: 1 << 40, log: zap.NewNop(), open: make(map[*arrival]struct{})}
			var list []*arrival
			for _, m := range test.messages {
				a := &arrival{from: silent{}, began: time.Now().Add(-m.age)}
				came := (m.age - m.heldBack).Seconds()
				a.fades.Store(math.Float64bits(came + math.Log2(float64(m.bytes)/(1+came))))
				all.grow(a, m.bytes)
				list = append(list, a)
			}
			all.mu.Lock()
			all.budget = test.budget
			if test.most > 0 {
				all.most = test.most
			}
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
				if all.done(a) != a.givenUp {
					t.Errorf("given up: %v, but done says otherwise", a.givenUp)
				}
			}
			if n := all.bytes.Load(); n != 0 {
				t.Errorf("%d bytes are still counted, want 0", n)
			}
		})
	}
}

// A complete body counts until Recv has taken the earlier ones, also on the node that forwards it.
// Large bodies of a paused connection are not even read, unless another node forwards them.
func TestPendingBodiesHaveABudget(t *testing.T) {
	for name, test := range map[string]struct {
		pause, forward bool
		want           int64 // bytes that count while a body of 100 KB is pending
	}{
		"behind another body": {want: 128 << 10},
		"in a pause":          {pause: true},
		"forwarded":           {forward: true, want: 128 << 10},
		"forwarded, paused":   {pause: true, forward: true, want: 128 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			goOn := make(chan struct{})
			far := &bench{T: t, conns: make(chan *Conn, 10), got: make(chan Message, 10)}
			far.serve(Options{NodeID: "far1", MaxPayload: 150_000, ReceiveBudget: 300_000}, func(c *Conn) {
				far.conns <- c
				for m, err := c.Recv(); err == nil; m, err = c.Recv() {
					far.got <- m
					if test.pause {
						c.Pause()
					}
					<-goOn
					c.Resume()
				}
			})
			counting := []*bench{far}
			client := far
			if test.forward {
				client = setUp(t, Options{NodeID: "near", MaxPayload: 150_000, ReceiveBudget: 300_000, Forward: func(w http.ResponseWriter, r *http.Request, _ string) error {
					far.ServeHTTP(w, Forwarded(r))
					return nil
				}})
				counting = append(counting, client)
			}
			defer close(goOn)
			sid := far.open()
			c := receive(t, far.conns)
			posted := make(chan int, 2)
			post := func() {
				res, _, err := client.try("POST", sid, "4"+strings.Repeat("x", 100_000))
				if err != nil {
					t.Error(err)
					res = &http.Response{}
				}
				posted <- res.StatusCode
			}
			far.post(sid, "4a"+separator+"4"+strings.Repeat("b", 100_000)) // "a" is being handled
			receive(t, far.got)
			counts := func(want int64) {
				t.Helper()
				for _, b := range counting {
					b.until(func() bool { return b.Stats().ReceivingBytes == want })
				}
			}
			counts(0)
			go post()
			if test.want == 0 {
				time.Sleep(50 * time.Millisecond) // there is no event to wait for
			}
			counts(test.want)
			goOn <- struct{}{}
			receive(t, far.got)
			goOn <- struct{}{}
			receive(t, far.got)
			if status := receive(t, posted); status != http.StatusOK {
				t.Errorf("answered %d, want %d", status, http.StatusOK)
			}
			counts(0)

			go func() { goOn <- struct{}{} }()
			far.post(sid, "4c"+separator+"4"+strings.Repeat("d", 100_000))
			receive(t, far.got)
			if test.want == 0 {
				return
			}
			go post()
			counts(test.want)
			client.arriving.mu.Lock()
			client.arriving.budget = 100_000
			client.arriving.shed()
			client.arriving.mu.Unlock()
			if status := receive(t, posted); status != http.StatusBadRequest {
				t.Errorf("given up, and answered %d, want %d", status, http.StatusBadRequest)
			}
			far.until(func() bool { return c.cause() != nil })
			if !test.forward && !givenUp(c) {
				t.Errorf("it ends with %v", c.cause())
			}
			if n := client.Stats().ReceiveCuts; n != 1 {
				t.Errorf("%d are counted as given up, want 1", n)
			}
			counts(0)
		})
	}
}

// During an upgrade two bodies are accepted although Recv has not taken the earlier ones. They count
// until it has.
func TestBodiesThatExceedTheInboxHaveABudget(t *testing.T) {
	for _, spent := range []bool{false, true} {
		goOn := make(chan struct{})
		b := &bench{T: t, conns: make(chan *Conn, 1), ends: make(chan error, 1)}
		b.serve(Options{}, func(c *Conn) {
			_, err := c.Recv()
			c.Pause()
			b.conns <- c
			<-goOn
			c.Resume()
			for err == nil {
				_, err = c.Recv()
			}
			b.ends <- err
		})
		sid := b.open()
		b.post(sid, "4a"+separator+"4b")
		c := receive(t, b.conns)
		b.probe(sid)
		b.poll(sid)
		for range upgradePosts {
			b.post(sid, "4"+strings.Repeat("x", 100_000))
		}
		if n := b.Stats().ReceivingBytes; n != upgradePosts*128<<10 {
			t.Errorf("%d bytes are counted, want %d", n, upgradePosts*128<<10)
		}
		if spent {
			b.arriving.mu.Lock()
			b.arriving.budget = 150_000
			b.arriving.shed()
			b.arriving.mu.Unlock()
			if c.Unread() != 0 || !givenUp(c) {
				t.Error("a message that exceeds the budget is kept")
			}
		}
		close(goOn)
		b.until(func() bool { return b.Stats().ReceivingBytes == 0 })
		if spent {
			receive(t, b.ends)
		}
	}
}

// A closed session holds no requests while its client has yet to fetch the close.
func TestClosedSessionHoldsNoRequests(t *testing.T) {
	b := &bench{T: t, conns: make(chan *Conn, 1)}
	b.serve(Options{}, func(c *Conn) {
		_, _ = c.Recv()
		_ = c.Close(ForcedClose)
		b.conns <- c
	})
	sid := b.open()
	b.post(sid, "4a"+separator+"4"+strings.Repeat("b", 100_000))
	p := receive(t, b.conns).polling
	held := func() int {
		p.c.mu.Lock()
		defer p.c.mu.Unlock()
		return cap(p.inbox)
	}
	b.until(func() bool { return held() == 0 })
	b.post(sid, "4"+strings.Repeat("c", 100_000))
	if n := held(); n != 0 {
		t.Errorf("%d bytes are held, want 0", n)
	}
	b.poll(sid)
}

// Large messages that exceed their part of the budget do not cost the others theirs.
func TestLargeMessagesLeaveOthersTheirPart(t *testing.T) {
	all := &arrivals{budget: 1000 << 10, most: 750 << 10, log: zap.NewNop(), open: make(map[*arrival]struct{})}
	begin := func(bytes, came int) *arrival {
		a := &arrival{from: silent{}, began: time.Now()}
		a.came(came)
		all.grow(a, bytes)
		return a
	}
	var others []*arrival
	for range 15 { // 240 of 250 KiB
		others = append(others, begin(16<<10, 8<<10))
	}
	begin(512<<10, 512<<10)
	all.grow(begin(128<<10, 128<<10), 256<<10)
	if slices.ContainsFunc(others, func(a *arrival) bool { return a.givenUp }) {
		t.Error("small messages are given up")
	}
	if all.cuts.Load() != 1 {
		t.Errorf("%d messages are given up, want one large", all.cuts.Load())
	}
}

package socketio

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// A held delivery counts once for any number of gates, until the last of them has dropped it.
func TestHeldDeliveriesCountOnce(t *testing.T) {
	n := &Namespace{srv: new(Server)}
	budget := &n.srv.held
	budget.most = 30_000
	event := func(size int) *delivery { return n.newDelivery(&adapter.Event{Data: make([]byte, size)}) }
	gates := make([]gate, 3)
	for i := range gates {
		gates[i].shut++
	}
	wants := func(what string, want int) {
		t.Helper()
		if got := int(budget.bytes.Load()); got != want {
			t.Errorf("%s: %d bytes, want %d", what, got, want)
		}
	}
	shared, own := event(10_000), event(25_000)
	for i := range gates {
		gates[i].hold(shared, 1<<20)
	}
	wants("shared", shared.size()+3*heldSlot)
	gates[0].hold(own, 1<<20)
	if _, refused := gates[1].hold(event(10), 1<<20); !refused { // it has more than a little, and the budget is used up
		t.Error("the budget is not the cause")
	}
	if gates[0].spilled || !gates[1].spilled || gates[2].spilled {
		t.Errorf("spilled: %v, %v, %v", gates[0].spilled, gates[1].spilled, gates[2].spilled)
	}
	wants("one has spilled", shared.size()+own.size()+3*heldSlot)
	if _, refused := gates[1].hold(event(10), 1<<20); refused {
		t.Error("what has spilled reaches the limit again")
	}
	small := gate{shut: 1}
	for range 3 {
		if small.hold(event(1000), 1<<20); small.spilled {
			t.Error("a few small events are not held")
		}
	}
	small.open(func(*delivery) {})
	gates[0].discard(adapter.Cursor{})
	gates[0].open(func(*delivery) {})
	wants("one has opened", shared.size()+heldSlot)
	gates[2].lose()
	wants("one has lost its events", 0)
}

// Gates whose replays read again what they drop use at most half of the budget, and leave the rest to
// those that would be cut.
func TestHeldByRecoveriesLeavesHalf(t *testing.T) {
	n := &Namespace{srv: new(Server)}
	n.srv.held.most = 100_000
	event := func(size int) *delivery { return n.newDelivery(&adapter.Event{Data: make([]byte, size)}) }
	recovering, joining := make([]gate, 10), make([]gate, 4)
	held := 0
	for i := range recovering {
		recovering[i].shut, recovering[i].rereads = 1, true
		if recovering[i].hold(event(30_000), 1<<20); !recovering[i].spilled {
			held++
		}
	}
	if held != 2 {
		t.Errorf("%d hold, want 2", held)
	}
	for i := range joining {
		joining[i].shut = 1
		if joining[i].hold(event(8000), 1<<20); joining[i].spilled {
			t.Errorf("join %d is cut", i)
		}
	}
}

// Recoveries hold events within the budget of a node while their clients read nothing. Beyond it
// they read the events again, and nothing is lost.
func TestHeldByRecoveriesIsBounded(t *testing.T) {
	const clients, missed, size = 12, 20, 10 << 10
	n := start(t, Options{Engine: engineio.Options{SendQueueBytes: 64 << 10, QueueBudget: 280 << 10}})
	joining(n.Namespace)
	var sids, pids []string
	for range clients {
		w := n.client(t)
		sids, pids = append(sids, w.sid), append(pids, w.pid)
		w.cut()
	}
	eventually(t, "all are disconnected", func() bool { return n.Stats().Sockets == 0 })
	for i := range missed {
		must(t, n.Emit(t.Context(), "n", i, strings.Repeat("x", 2<<10)))
	}
	var polls []func() string
	for _, pid := range pids {
		poll, post := n.polling(t)
		post(fmt.Sprintf(`40{"pid":%q}`, pid))
		polls = append(polls, poll)
	}
	eventually(t, "all are being recovered", func() bool { return n.Stats().Sockets == clients })
	for i, sid := range sids {
		must(t, n.ToSocket(sid).Emit(t.Context(), "n", missed, i, strings.Repeat("x", size)))
	}
	head, err := n.adapter.Head(t.Context())
	must(t, err)
	n.awaitFeed(t.Context(), head.At)
	if held, most := n.held.bytes.Load(), n.held.most+2*size; held > most || held < size {
		t.Errorf("%d bytes are held, want at most %d", held, most)
	}
	if n.Stats().Limited[limitHeldBudget] == 0 {
		t.Error("none has reached the limit")
	}
	for i, poll := range polls {
		for next := 0; next <= missed; {
			for _, packet := range strings.Split(poll(), "\x1e") {
				var number int
				if _, err := fmt.Sscanf(packet, `42["n",%d,`, &number); err != nil {
					continue
				}
				if number != next {
					t.Fatalf("client %d: got event %d, want %d", i, number, next)
				}
				next++
			}
		}
	}
	eventually(t, "nothing is held", func() bool { return n.held.bytes.Load() == 0 })
}

// A socket that is not being recovered is cut if the budget is used up: its next connection recovers.
func TestHeldByOthersIsBounded(t *testing.T) {
	n := start(t, Options{Engine: engineio.Options{QueueBudget: 80 << 10}})
	var all []*wire
	for range 4 {
		w := n.client(t)
		s := n.Socket(w.sid)
		s.mu.Lock()
		s.gate.shut++
		s.mu.Unlock()
		must(t, n.ToSocket(w.sid).Emit(t.Context(), "n", strings.Repeat("x", 11<<10)))
		all = append(all, w)
	}
	all[2].gone()
	all[3].gone()
	if got := n.Stats().Limited[limitHeldBudget]; got != 2 {
		t.Errorf("%d have reached the limit, want 2", got)
	}
	all[0].cut() // its held deliveries no longer count
	eventually(t, "one is held", func() bool { return n.held.bytes.Load() < 12<<10 })
	s := n.Socket(all[1].sid)
	s.mu.Lock()
	s.openGate()
	s.mu.Unlock()
	if got := all[1].next(); !strings.HasPrefix(got, `42["n"`) {
		t.Errorf("got %.20s", got)
	}
}

// Acks that wait for events of their handlers are sent early if the budget is used up.
func TestHeldAcksAreBounded(t *testing.T) {
	n, feed := startDelayed(t, Options{AckTimeout: time.Hour, Engine: engineio.Options{QueueBudget: 216 << 10}})
	n.On("state", func(ctx context.Context, e *Event) error {
		if err := e.Socket().Emit(ctx, "state"); err != nil {
			return err
		}
		return e.Ack(strings.Repeat("x", 3<<10))
	})
	asks := []int{4, 4, 2} // 13 KiB are held for each of the first two clients
	var all []*wire
	for range asks {
		all = append(all, n.client(t))
	}
	release := sync.OnceFunc(feed.shut())
	defer release()
	acks := make([][]string, len(asks))
	for i, w := range all {
		for range asks[i] {
			acks[i] = append(acks[i], w.ask(`["state"]`))
		}
		if i < 2 {
			eventually(t, "the acks are held", func() bool { return n.held.bytes.Load() > int64(i+1)*13<<10 })
		}
	}
	for _, ack := range acks[2] {
		all[2].wantAck(ack)
	}
	if late := n.Stats().AcksLate; late != 2 {
		t.Errorf("got %d acks count as early, want 2", late)
	}
	if got := n.Stats().Limited[limitHeldBudget]; got != 1 {
		t.Errorf("%d have reached the limit, want 1", got)
	}
	release()
	for i, w := range all {
		for _, ack := range acks[i] {
			w.want(`["state"]`)
			if i < 2 {
				w.wantAck(ack)
			}
		}
	}
}

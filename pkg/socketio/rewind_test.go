package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// rewinding registers a handler that joins rooms and acks with some of their newest events.
func rewindingJoin(n *Namespace) {
	n.On("rewind", func(ctx context.Context, e *Event) error {
		var last int
		var rooms []string
		if err := e.Bind(&last, &rooms); err != nil {
			return err
		}
		var since string
		if err := e.Arg(2, &since); err != nil {
			return err
		}
		if err := e.AckJoin(ctx, Rewind{Last: last, Since: since}, rooms...); err != nil {
			return e.Ack(err.Error())
		}
		return nil
	})
}

// A rewoundAck is the ack of AckJoin as a client reads it.
type rewoundAck struct {
	Joined  string
	History map[string]struct {
		Events []struct {
			Offset, Event string
			Args          []json.RawMessage
			At            int64
			TooDeep       bool
		}
		More     bool
		Complete *bool
	}
}

func (a rewoundAck) args(room string) (args []string) {
	for _, e := range a.History[room].Events {
		args = append(args, string(e.Args[0]))
	}
	return args
}

// rewind joins rooms with the last events of each.
func (w *wire) rewind(last int, rooms ...string) (a rewoundAck) {
	w.t.Helper()
	list, _ := json.Marshal(rooms)
	return w.rewound(w.call(fmt.Sprintf(`["rewind",%d,%s]`, last, list)))
}

func (w *wire) rewound(ack string) (a rewoundAck) {
	w.t.Helper()
	if err := json.Unmarshal([]byte(strings.TrimSuffix(strings.TrimPrefix(ack, "["), "]")), &a); err != nil {
		w.t.Fatalf("the join was answered %s", ack)
	}
	return a
}

func TestAckJoin(t *testing.T) {
	n := start(t, Options{})
	rewindingJoin(n.Of("/"))
	for i := range 5 {
		must(t, n.To("r").Emit(t.Context(), "n", i))
		must(t, n.To("other").Emit(t.Context(), "n", -1))
	}
	w := n.client(t)
	a := w.rewind(3, "r", "empty")
	if got := fmt.Sprint(a.args("r")); got != "[2 3 4]" || !a.History["r"].More {
		t.Errorf("the history has %s, more %v", got, a.History["r"].More)
	}
	if h := a.History["empty"]; h.Events == nil || len(h.Events) > 0 || h.More {
		t.Errorf("the history of a room without events: %+v", h)
	}
	must(t, n.To("r").Emit(t.Context(), "n", 5))
	w.want(numbered(5))
	if got := fmt.Sprint(w.rewind(10, "r").args("r")); got != "[0 1 2 3 4 5]" {
		t.Errorf("the second join has %s", got)
	}
	if a := w.rewind(0, "r"); len(a.History["r"].Events) > 0 || !a.History["r"].More || a.Joined == "" {
		t.Errorf("without events: %+v", a)
	}
	must(t, n.To("r").Emit(t.Context(), "n", 6))
	w.want(numbered(6))
}

// A heldHistory lets the test act before and after History has read.
type heldHistory struct {
	adapter.Adapter
	before, after func()
}

func (h *heldHistory) History(ctx context.Context, room rooms.Room, page adapter.Page) ([]adapter.Event, bool, error) {
	h.before()
	defer h.after()
	return h.Adapter.History(ctx, room, page)
}

// Events that are published while the history is read, or after it, follow the ack, and are not in it.
func TestEventsDuringAckJoin(t *testing.T) {
	node, err := adapter.NewMemory(adapter.MemoryOptions{}).Node("a")
	must(t, err)
	held := &heldHistory{Adapter: node}
	n := start(t, Options{Adapter: held})
	rewindingJoin(n.Of("/"))
	next := 0
	publish := func() {
		for range 3 {
			must(t, n.To("r").Emit(t.Context(), "n", next))
			next++
		}
		must(t, n.Everyone().Emit(t.Context(), "for all"))
	}
	publish()
	held.before, held.after = publish, publish
	w := n.client(t)
	if got := fmt.Sprint(w.rewind(10, "r").args("r")); got != "[0 1 2]" {
		t.Errorf("the history has %s", got)
	}
	w.want(numbered(3), numbered(4), numbered(5), `["for all"]`, numbered(6), numbered(7), numbered(8), `["for all"]`)
}

// since joins a room with the events after an offset, and describes them.
func (w *wire) since(last int, room, offset string) string {
	w.t.Helper()
	a := w.rewound(w.call(fmt.Sprintf(`["rewind",%d,["%s"],"%s"]`, last, room, offset)))
	h := a.History[room]
	if h.Complete == nil {
		w.t.Fatalf("not said whether %v is complete", h)
	}
	return fmt.Sprint(a.args(room), " more ", h.More, " complete ", *h.Complete)
}

func TestAckJoinSince(t *testing.T) {
	cluster := newCluster(adapter.MemoryOptions{BacklogLimit: 50})
	n := cluster.node(t, "a", Options{})
	rewindingJoin(n.Of("/"))
	w := n.client(t)
	begin := w.rewind(0, "r").Joined
	var offsets []string
	for i := range 5 {
		offset, err := n.To("r").Publish(t.Context(), "n", i)
		must(t, err)
		offsets = append(offsets, offset)
		w.want(numbered(i))
	}
	other := start(t, Options{})
	foreign, err := other.To("r").Publish(t.Context(), "n", 0)
	must(t, err)
	_, early, _ := strings.Cut(offsets[0], ".")
	for _, c := range []struct {
		what, since string
		last        int
		want        string
	}{
		{"a live event", offsets[1], 0, "[2 3 4] more false complete true"},
		{"the newest event", offsets[4], 0, "[] more false complete true"},
		{"the join of a client", begin, 0, "[0 1 2 3 4] more false complete true"},
		{"more than wanted", offsets[0], 2, "[3 4] more true complete false"},
		{"as many as wanted", offsets[0], 4, "[1 2 3 4] more false complete true"},
		{"another history", foreign, 3, "[2 3 4] more true complete false"},
		{"an unknown history", "zzzzzzzz." + early, 9, "[0 1 2 3 4] more false complete false"},
		{"the future", strings.Split(begin, ".")[0] + ".zzzzzzzz.0", 9, "[0 1 2 3 4] more false complete false"},
	} {
		if got := w.since(c.last, "r", c.since); got != c.want {
			t.Errorf("since %s: %s, want %s", c.what, got, c.want)
		}
	}
	if got := w.call(`["rewind",1,["r"],"nonsense"]`); !strings.Contains(got, ErrOffset.Error()) {
		t.Errorf("since nonsense: %s", got)
	}
	for i := range 200 {
		must(t, n.To("r").Emit(t.Context(), "n", 5+i))
	}
	reader := n.client(t)
	if got := reader.since(200, "r", offsets[1]); !strings.HasSuffix(got, "204] more false complete false") {
		t.Errorf("since an event that is trimmed: %s", got)
	}
}

// The rooms of a join share what an ack may have.
func TestAckJoinIsBounded(t *testing.T) {
	n := start(t, Options{})
	rewindingJoin(n.Of("/"))
	room := func(kind string, i int) string { return fmt.Sprint(kind, i) }
	rooms := func(kind string, count int) (names []string) {
		for i := range count {
			names = append(names, room(kind, i))
		}
		return names
	}
	for _, name := range rooms("many", 8) {
		for i := range 300 {
			must(t, n.To(name).Emit(t.Context(), "n", i))
		}
	}
	for _, name := range rooms("large", 10) {
		for range 3 {
			must(t, n.To(name).Emit(t.Context(), "n", strings.Repeat("x", 100_000)))
		}
	}
	for _, name := range rooms("huge", 3) {
		must(t, n.To(name).Emit(t.Context(), "n", strings.Repeat("x", 900_000)))
	}
	deep := json.RawMessage(strings.Repeat("[", packet.MaxDepth-2) + strings.Repeat("]", packet.MaxDepth-2))
	must(t, n.To("deep").Emit(t.Context(), "n", deep))
	must(t, n.To("deep").Emit(t.Context(), "n", 1))
	w := n.client(t)
	count := func(a rewoundAck) (events, bytes, more int) {
		for _, h := range a.History {
			events += len(h.Events)
			for _, e := range h.Events {
				bytes += len(e.Args[0])
			}
			if h.More {
				more++
			}
		}
		return events, bytes, more
	}
	if events, _, more := count(w.rewind(200, rooms("many", 8)...)); events != ackEvents || more != 8 {
		t.Errorf("%d events of 8 rooms, more in %d", events, more)
	}
	if events, bytes, more := count(w.rewind(200, rooms("large", 10)...)); bytes > ackBytes || bytes < ackBytes/2 || more != 10 {
		t.Errorf("%d large events with %d bytes, more in %d rooms", events, bytes, more)
	}
	if events, bytes, more := count(w.rewind(200, rooms("huge", 3)...)); events != 1 || more != 2 {
		t.Errorf("%d huge events with %d bytes, more in %d rooms, want 1 event", events, bytes, more)
	}
	a := w.rewind(10, "deep")
	if e := a.History["deep"].Events; len(e) != 2 || !e[0].TooDeep || len(e[0].Args) != 0 || e[1].TooDeep {
		t.Errorf("a deep event: %+v", e)
	}
	if got := w.call(fmt.Sprintf(`["rewind",1,["%s"]]`, strings.Join(rooms("many", RewindRooms+1), `","`))); !strings.Contains(got, ErrTooManyRooms.Error()) {
		t.Errorf("more rooms than allowed: %s", got)
	}
}

// Joins with history that a node does not work on yet wait, and then fail without joining.
func TestAckJoinWaitsForItsTurn(t *testing.T) {
	n := start(t, Options{})
	rewindingJoin(n.Of("/"))
	joining(n.Of("/"))
	for range concurrentRewinds {
		n.rewinds <- struct{}{}
	}
	w := n.client(t)
	if got := w.call(`["rewind",1,["r"]]`); !strings.Contains(got, ErrBusy.Error()) || n.Stats().Limited[limitRewinds] != 1 {
		t.Errorf("without a turn: %s, limited %v", got, n.Stats().Limited)
	}
	must(t, n.To("r").Emit(t.Context(), "n", 0))
	w.quiet()
	w.write(`429["rewind",1,["r"]]`)
	<-n.rewinds
	if got := w.next(); !strings.HasPrefix(got, `439[{"joined":`) {
		t.Errorf("with a turn: %s", got)
	}
}

// A join whose history cannot be read has not happened.
func TestAckJoinFails(t *testing.T) {
	node, err := adapter.NewMemory(adapter.MemoryOptions{}).Node("a")
	must(t, err)
	failing := &failingHistory{Adapter: node}
	n := start(t, Options{Adapter: failing})
	rewindingJoin(n.Of("/"))
	joining(n.Of("/"))
	w := n.client(t)
	failing.err = adapter.ErrUnavailable
	if got := w.call(`["rewind",1,["r"]]`); !strings.Contains(got, failing.err.Error()) {
		t.Errorf("the join was answered %s", got)
	}
	must(t, n.To("r").Emit(t.Context(), "n", 0))
	must(t, n.Everyone().Emit(t.Context(), "n", 1))
	w.want(numbered(1))
	failing.err = nil
	if got := fmt.Sprint(w.rewind(1, "r").args("r")); got != "[0]" {
		t.Errorf("the history has %s", got)
	}
}

type failingHistory struct {
	adapter.Adapter
	err error
}

func (f *failingHistory) History(ctx context.Context, room rooms.Room, page adapter.Page) ([]adapter.Event, bool, error) {
	if f.err != nil {
		return nil, false, f.err
	}
	return f.Adapter.History(ctx, room, page)
}

// Events that a handler published before, to rooms that its socket is in, come before the ack.
func TestAckJoinFollowsEventsOfItsHandler(t *testing.T) {
	n := start(t, Options{})
	n.On("publish and rewind", func(ctx context.Context, e *Event) error {
		if err := e.Socket().Self().Emit(ctx, "n", 1); err != nil {
			return err
		}
		return e.AckJoin(ctx, Rewind{Last: 1}, "r")
	})
	w := n.client(t)
	for range 20 {
		w.write(`421["publish and rewind"]`)
		w.want(numbered(1))
		if got := w.next(); !strings.HasPrefix(got, "431[") {
			t.Fatalf("got %s", got)
		}
	}
}

// A panic in the function that makes the answer fails the join, and nothing stays held.
func TestAckJoinWhoseAnswerPanics(t *testing.T) {
	n := start(t, Options{})
	n.On("rewind", func(ctx context.Context, e *Event) error {
		err := e.AckJoin(ctx, Rewind{Last: 1, Answer: func(*Rewound) []any { panic("on purpose") }}, "r")
		if panicked := new(PanicError); !errors.As(err, &panicked) {
			t.Errorf("AckJoin: %v, want a PanicError", err)
		}
		return e.Ack(e.Socket().InRoom("r"))
	})
	w := n.client(t)
	if got := w.call(`["rewind"]`); got != "[false]" {
		t.Errorf("the socket is in the room: %s", got)
	}
	must(t, n.Everyone().Emit(t.Context(), "n", 1))
	w.want(numbered(1))
}

// Clients that do not read their acks keep no other client from joining with history.
func TestSlowClientsDoNotHoldUpAckJoin(t *testing.T) {
	n := start(t, Options{})
	rewindingJoin(n.Of("/"))
	must(t, n.To("large").Emit(t.Context(), "n", strings.Repeat("x", 60_000)))
	const clients = concurrentRewinds + 4
	for range clients {
		poll, post := n.polling(t)
		post("40")
		poll()
		for i := range 3 { // the second waits for the first one's ack to be taken
			post(fmt.Sprintf(`42%d["rewind",1,["large"]]`, i))
		}
	}
	unread := func() (count int) {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, c := range n.clients {
			if c.conn.Held() > 32<<10 {
				count++
			}
		}
		return count
	}
	eventually(t, "all clients have unread acks", func() bool { return unread() == clients })
	w := n.client(t)
	for range 5 {
		w.rewind(1, "r")
	}
}

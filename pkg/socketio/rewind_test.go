package socketio

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
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
		if err := e.AckJoin(ctx, Rewind{Last: last}, rooms...); err != nil {
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
		More bool
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

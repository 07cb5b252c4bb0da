package socketio

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A lossy adapter loses the events of one kind, like one that can't decode them: in their
// rooms, or, if they have flags, in all rooms.
type lossy struct {
	adapter.Adapter
	undecodable bool // so are replays
}

const lostKind = 200

func (l *lossy) Next(ctx context.Context) (adapter.Event, error) {
	e, err := l.Adapter.Next(ctx)
	if err != nil || e.Kind != lostKind {
		return e, err
	}
	lost := &adapter.LostError{Reason: "by the test", Rooms: e.Target.To}
	if e.Flags != 0 {
		lost.Rooms = nil
	}
	return adapter.Event{}, lost
}

func (l *lossy) Replay(ctx context.Context, after map[rooms.Room]adapter.Cursor, upTo adapter.Cursor, payload int) iter.Seq2[adapter.Event, error] {
	if l.undecodable {
		return func(yield func(adapter.Event, error) bool) { yield(adapter.Event{}, adapter.ErrUndecodable) }
	}
	return l.Adapter.Replay(ctx, after, upTo, payload)
}

func (c *testCluster) lossy(t *testing.T, id adapter.NodeID) (*testNode, *lossy) {
	t.Helper()
	a, err := c.memory.Node(id)
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	l := &lossy{Adapter: a}
	n := start(t, Options{Adapter: l, Sessions: c.sessions})
	joining(n.Namespace)
	return n, l
}

// The members of a room that has lost an event are cut, and get nothing behind it, because
// their offsets would hide the gap. Other sockets are not affected.
func TestMembersOfALossyRoomAreCut(t *testing.T) {
	for _, all := range []bool{false, true} {
		t.Run(fmt.Sprint("all: ", all), func(t *testing.T) {
			n, l := newCluster(adapter.MemoryOptions{}).lossy(t, "aaaa")
			in, out := n.client(t), n.client(t)
			in.call(`["join","r"]`)
			in.call(`["join","s"]`)
			out.call(`["join","s"]`)
			must(t, n.To("s").Emit(t.Context(), "n", 1))
			in.want(numbered(1))
			out.want(numbered(1))
			lost := adapter.Event{Kind: lostKind, Target: rooms.Target{To: []rooms.Room{rooms.InNamed("/", "r")}}}
			if all {
				lost.Flags, lost.Target.To = 1, []rooms.Room{rooms.InEveryone("/")}
			}
			_, err := l.Publish(t.Context(), lost)
			must(t, err)
			for i := range 10 {
				must(t, n.To("s").Emit(t.Context(), "n", 2+i))
			}
			members := []*wire{in}
			if all {
				members = append(members, out)
			} else {
				out.want(numbered(2), numbered(3))
			}
			for _, m := range members {
				<-m.closed
				select {
				case got := <-m.in:
					t.Errorf("a member got %q behind the loss", got)
				default:
				}
			}
		})
	}
}

// An undecodable event is not hidden: the client is not recovered.
func TestUndecodableRecoveryIsRefused(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n, l := c.lossy(t, "aaaa")
	a := n.client(t)
	a.call(`["join","r"]`)
	a.cut()
	must(t, n.To("r").Emit(t.Context(), "n", 1))
	l.undecodable = true
	if b := n.back(t, a); b.sid == a.sid || b.pid == a.pid {
		t.Error("recovered")
	}
}

// Calls that name too many rooms fail before anything has happened.
func TestTooManyRoomsInOneCall(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	a := n.client(t)
	a.call(`["join","r"]`)
	many := make([]string, adapter.MaxRooms)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	ctx := t.Context()
	b := n.To("r").To(many...)
	_, fetched := b.FetchSockets(ctx)
	_, listed := b.Members(ctx, "")
	_, asked := b.EmitWithAck(ctx, "n", 9)
	copies, large := n.To(many[:1000]...), make([]byte, adapter.MaxCopies/1000)
	_, askedCopies := copies.EmitWithAck(ctx, "n", large)
	names := make([]string, 2000) // that a command lists for each of its rooms
	for i := range names {
		names[i] = fmt.Sprintf("%0100d", i)
	}
	for call, err := range map[string]error{
		"Emit":              b.Emit(ctx, "n", 9),
		"Except":            n.To("r").Except(many...).Emit(ctx, "n", 9),
		"Local":             b.Local().Emit(ctx, "n", 9),
		"EmitWithAck":       asked,
		"FetchSockets":      fetched,
		"Members":           listed,
		"SocketsJoin":       n.To("r").SocketsJoin(ctx, many...),
		"SocketsLeave":      n.To("r").SocketsLeave(ctx, many...),
		"DisconnectSockets": b.DisconnectSockets(ctx, false),
		"copies":            copies.Emit(ctx, "n", large),
		"local copies":      copies.Local().Emit(ctx, "n", large),
		"asked copies":      askedCopies,
		"local command":     copies.Local().SocketsJoin(ctx, names...),
	} {
		if !errors.Is(err, ErrTooLarge) || errors.Is(err, adapter.ErrUnavailable) {
			t.Errorf("%s: %v", call, err)
		}
	}
	must(t, n.To("r").To(many[1:]...).Emit(ctx, "n", 1))
	must(t, n.Except(many...).Emit(ctx, "n", 2)) // to everyone, which it does not name
	must(t, n.Socket(n.client(t).sid).Except(many...).Emit(ctx, "n", 3))
	a.want(numbered(1), numbered(2), numbered(3))
	a.quiet()
}

// A name becomes a part of keys in Redis, so its length is bounded.
func TestLongNamesInOneCall(t *testing.T) {
	n := start(t, Options{})
	ctx, longest := t.Context(), strings.Repeat("x", 200)
	long := longest + "x"
	for call, b := range map[string]func(name string) Broadcast{
		"To":           func(name string) Broadcast { return n.To("r", name) },
		"ToSocket":     func(name string) Broadcast { return n.ToSocket(name) },
		"Except":       func(name string) Broadcast { return n.Except(name) },
		"ExceptSocket": func(name string) Broadcast { return n.To("r").ExceptSocket(name) },
		"Local":        func(name string) Broadcast { return n.ToSocket(name).Local() },
	} {
		if err := b(long).Emit(ctx, "n"); !errors.Is(err, ErrRoomName) {
			t.Errorf("%s: %v, want ErrRoomName", call, err)
		}
		if err := b(longest).Emit(ctx, "n"); err != nil {
			t.Errorf("%s of the longest name: %v", call, err)
		}
		_, err := b(long).FetchSockets(ctx)
		_, listed := b(long).Members(ctx, "")
		for operation, err := range map[string]error{
			"FetchSockets": err, "Members": listed, "SocketsJoin": b(long).SocketsJoin(ctx, "q"), "DisconnectSockets": b(long).DisconnectSockets(ctx, false),
		} {
			if !errors.Is(err, ErrRoomName) {
				t.Errorf("%s, %s: %v, want ErrRoomName", call, operation, err)
			}
		}
	}
}

// An event to thousands of rooms costs each member no more than its own rooms.
func TestManyRoomsAreMatchedQuickly(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	a, b := n.client(t), n.client(t)
	a.call(`["join","0"]`)
	a.call(`["join","7"]`)
	b.call(`["join","8"]`)
	b.call(`["join","spared 3"]`)
	var many, spared []string
	for i := range 5000 {
		many, spared = append(many, fmt.Sprint(i)), append(spared, fmt.Sprint("spared ", i))
	}
	must(t, n.To(many...).Except(spared...).Emit(t.Context(), "n", 1))
	must(t, n.Emit(t.Context(), "n", 2))
	a.want(numbered(1), numbered(2))
	b.want(numbered(2))
}

// An event that was read for one room and is held for another is one event for both.
func TestInsertUnitesRooms(t *testing.T) {
	n := start(t, Options{})
	at := func(ms uint64, name string) *delivery {
		return n.newDelivery(&adapter.Event{
			Stored: true, Position: adapter.Position{Ms: ms}, Target: rooms.Target{To: []rooms.Room{rooms.InNamed("/", name)}},
			Cursor: adapter.NewCursor("E", 0, []adapter.Position{{Ms: ms}}),
		})
	}
	g := gate{shut: 1}
	defer g.drop()
	for _, d := range []*delivery{at(1, "r"), at(3, "r")} {
		g.hold(d, 1<<20)
	}
	g.insert([]*delivery{at(2, "s"), at(3, "s")}, adapter.NewCursor("E", 0, []adapter.Position{{}}))
	got := ""
	for _, d := range g.held {
		for _, r := range d.ev.Target.To {
			got += fmt.Sprint(d.ev.Position.Ms, r.Name, " ")
		}
	}
	if want := "1r 2s 3r 3s "; got != want {
		t.Errorf("held: %s, want %s", got, want)
	}
}

// Positions of different partitions have no order: events come in the order of the held
// cursors, none comes twice, and each cursor covers exactly the events before it.
func TestInsertAcrossPartitions(t *testing.T) {
	n := start(t, Options{})
	at := func(ms uint64, partition uint16, name string) *delivery {
		return n.newDelivery(&adapter.Event{
			Stored: true, Position: adapter.Position{Ms: ms, Partition: partition},
			Target: rooms.Target{To: []rooms.Room{rooms.InNamed("/", name)}},
		})
	}
	zero := adapter.NewCursor("E", 0, []adapter.Position{{}, {Partition: 1}})
	feed := adapter.NewProgress(zero)
	g := gate{shut: 1}
	defer g.drop()
	for _, d := range []*delivery{at(50, 0, "r"), at(10, 1, "r"), at(60, 0, "r"), at(30, 1, "r")} {
		d.ev.Cursor = feed.To(d.ev.Position)
		d.cursor = d.ev.Cursor
		g.hold(d, 1<<20)
	}
	g.insert([]*delivery{at(10, 1, "s"), at(20, 1, "s"), at(55, 0, "s"), at(70, 0, "s")}, zero)
	got, seen := "", adapter.NewProgress(zero)
	for _, d := range g.held {
		got += fmt.Sprint(d.ev.Position.Partition, ":", d.ev.Position.Ms, " ")
		if want := seen.To(d.ev.Position); d.cursor != want {
			t.Errorf("%d has cursor %v, want %v", d.ev.Position.Ms, d.cursor, want)
		}
	}
	if want := "0:50 1:10 0:55 0:60 1:20 1:30 0:70 "; got != want {
		t.Errorf("held: %s, want %s", got, want)
	}
}

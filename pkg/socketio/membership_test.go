package socketio

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
)

func at(n uint64) adapter.Cursor {
	return adapter.Cursor{Epoch: "e", At: adapter.Position{Ms: 1_000_000, Seq: n}}
}

func TestAStayHoldsAfterJoinUpToLeave(t *testing.T) {
	m := memberships{born: at(10)}
	m.enter("r")
	room := rooms.InNamed("/", "r")
	if m.in(room, "me", at(99).At) {
		t.Error("a pending stay held an event")
	}
	m.confirm("r", at(20))
	m.leave("r", at(30))
	for n, want := range map[uint64]bool{19: false, 20: false, 21: true, 30: true, 31: false} {
		if got := m.in(room, "me", at(n).At); got != want {
			t.Errorf("in at %d = %v, want %v", n, got, want)
		}
	}
	if m.in(rooms.InEveryone("/"), "me", at(10).At) || !m.in(rooms.InEveryone("/"), "me", at(11).At) {
		t.Error("everyone's room does not begin after birth")
	}
	if !m.in(rooms.InOwn("/", "me"), "me", at(11).At) || m.in(rooms.InOwn("/", "you"), "me", at(11).At) {
		t.Error("a socket is in its own room and no other's")
	}
}

func TestCommandsOfThePastCountOnce(t *testing.T) {
	m := memberships{born: at(1)}
	if !m.enterAt("r", at(5), adapter.Position{}) || m.enterAt("r", at(5), adapter.Position{}) {
		t.Fatal("the same join counted twice, or not at all")
	}
	if found, _ := m.leaveAt("r", at(4).At, at(4), false); found {
		t.Error("a leave from before the join ended the stay")
	}
	if _, open := m.leaveAt("r", at(7).At, at(7), false); !open {
		t.Error("the leave did not count")
	}
	if m.enterAt("r", at(5), adapter.Position{}) || m.enterAt("r", at(7), adapter.Position{}) {
		t.Error("a known join was applied again when it was read again")
	}
	if !m.enterAt("r", at(8), adapter.Position{}) {
		t.Error("a newer join did not count")
	}
}

func TestASessionKeepsTheStays(t *testing.T) {
	m := memberships{born: at(1)}
	m.enterAt("left", at(2), adapter.Position{})
	m.leave("left", at(3))
	m.enterAt("in", at(4), adapter.Position{})
	m.enter("pending")
	got, _, err := restore(m.save())
	if err != nil {
		t.Fatal(err)
	}
	if names := got.names(); len(names) != 1 || names[0] != "in" {
		t.Errorf("restored rooms %v, want [in]", names)
	}
	if !got.in(rooms.InNamed("/", "left"), "", at(3).At) || got.in(rooms.InNamed("/", "left"), "", at(4).At) {
		t.Error("the stay that has ended was not kept as it was")
	}
	if got.born != at(1) {
		t.Errorf("born %v", got.born)
	}
	since := got.since("/", "me", at(3), adapter.Cursor{})
	if since[rooms.InNamed("/", "in")] != at(4) || since[rooms.InEveryone("/")] != at(3) {
		t.Errorf("since %v", since)
	}
}

func TestTheGateHoldsInOrderAndDropsWhatTheReplayHad(t *testing.T) {
	g := gate{shut: 2}
	n := &Namespace{srv: new(Server)}
	event := func(seq uint64) *delivery {
		return n.newDelivery(&adapter.Event{Stored: true, Position: at(seq).At, Cursor: at(seq), Data: []byte(`["x"]`)})
	}
	for seq := range uint64(6) {
		if held, _ := g.hold(event(seq), 1<<20); !held {
			t.Fatal("a shut gate let something through")
		}
	}
	g.discard(at(2))
	var passed []uint64
	pass := func(d *delivery) {
		passed = append(passed, d.ev.Position.Seq)
		if d.ev.Position.Seq == 4 {
			g.shut++ // a command that joins
		}
	}
	g.open(pass)
	if len(passed) != 0 {
		t.Fatal("it opened while there was a reason to be shut")
	}
	g.open(pass)
	if len(passed) != 2 || passed[0] != 3 || passed[1] != 4 {
		t.Fatalf("passed %v, want 3 and 4 and then shut again", passed)
	}
	g.open(pass)
	if len(passed) != 3 || passed[2] != 5 || g.bytes != 0 {
		t.Fatalf("passed %v, %d bytes left", passed, g.bytes)
	}
}

func TestNoOffsetGoesBackAfterAReplay(t *testing.T) {
	var g gate
	g.discard(at(7))
	for _, c := range []struct{ own, want uint64 }{{5, 7}, {6, 7}, {7, 7}, {8, 8}, {9, 9}} {
		own := at(c.own)
		if got := *g.stamp(&own, new(adapter.Cursor)); got != at(c.want) {
			t.Errorf("an event at %d was stamped %v, want %d", c.own, got, c.want)
		}
	}
}

func TestAFullGateSpills(t *testing.T) {
	g := gate{shut: 1}
	n := &Namespace{srv: new(Server)}
	d := n.newDelivery(&adapter.Event{Data: make([]byte, 1000)})
	for range 3 {
		g.hold(d, 2500)
	}
	if !g.spilled || len(g.held) != 0 {
		t.Errorf("spilled %v with %d held, want spilled and empty", g.spilled, len(g.held))
	}
}

// A copy that is no longer apart must not be apart in the stored session either.
func TestSuspendedCopiesAreStored(t *testing.T) {
	early, later := at(3).At, at(7).At
	for _, tt := range []struct {
		seen adapter.Cursor
		kept bool
	}{{at(7), true}, {at(6), false}, {adapter.Cursor{}, false}} {
		var m memberships
		m.had(early, later)
		m.unsaved = false
		m.suspend(tt.seen)
		if _, kept := m.apart[early]; kept != tt.kept || m.unsaved == tt.kept {
			t.Errorf("seen up to %v: kept %t, unsaved %t", tt.seen, kept, m.unsaved)
		}
	}
}

// The order in which many rooms are written is kept through joins, leaves and forgotten
// rooms.
func TestOrderOfManyRooms(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := memberships{born: at(1)}
		enter := func(name string) {
			if m.current(name) == nil {
				m.enter(name)
				m.confirm(name, at(1))
			}
		}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			name := fmt.Sprint(rapid.IntRange(0, 2*manyStays).Draw(rt, "room"))
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0:
				for i := range manyStays {
					enter(fmt.Sprint(2 * i))
				}
			case 1:
				enter(name)
			case 2:
				m.leave(name, at(2))
			case 3:
				m.forget(time.Now(), nil)
			case 4:
				other := m.clone()
				enter("0 of the original")
				m = other
			case 5:
				var err error
				if m, _, err = restore(m.save()); err != nil {
					rt.Fatal(err)
				}
			}
			want := slices.Sorted(maps.Keys(m.named))
			if got := slices.Clone(m.inOrder()); !slices.Equal(got, want) {
				rt.Fatalf("got %v, want %v", got, want)
			}
		}
	})
}

// Few rooms with many ended stays are written in their order, too. Otherwise the difference
// between two writes would be most of a session.
func TestOrderOfManyStays(t *testing.T) {
	m := memberships{born: at(1)}
	for i := range manyStays {
		for _, name := range []string{"a", "b", "c"} {
			m.enter(name)
			m.confirm(name, at(uint64(2*i+1)))
			m.leave(name, at(uint64(2*i+2)))
		}
	}
	for range 20 { // the order of a map is random
		list := m.save()
		if !slices.IsSortedFunc(list[1:], func(a, b session.Membership) int { return strings.Compare(a.Name, b.Name) }) {
			t.Fatalf("not in their order: %v", list)
		}
	}
}

// Memberships that have ended are remembered for as long as a client may be recovered, by the clocks of
// the partitions: the node's own may be ahead.
func TestEndedMembershipsWithAClockBehind(t *testing.T) {
	n := start(t, Options{})
	sock := n.Socket(n.client(t).sid)
	past := 2 * n.opts.memory()
	clock := adapter.Cursor{Epoch: "e", At: adapter.Position{Ms: uint64(time.Now().Add(-past).UnixMilli())}}
	remembered := func() bool {
		sock.mu.Lock()
		defer sock.mu.Unlock()
		sock.rooms.named = map[string][]stay{"r": {{leave: clock}}} // it has just ended
		sock.forget()
		return len(sock.rooms.named["r"]) > 0
	}
	n.feed.noteClock(clock.At, time.Hour)
	if !remembered() {
		t.Error("forgotten immediately, because the partition's clock is behind")
	}
	now := adapter.Position{Ms: uint64(time.Now().UnixMilli())}
	n.feed.noteClock(now, time.Hour)
	if !remembered() {
		t.Error("forgotten because the clock has been set right since")
	}
	n.feed.noteClock(now, 0)
	n.feed.noteClock(now, 0) // twice: the maximum of the time before counts as well
	if remembered() {
		t.Error("still remembered although the clocks agree")
	}
}

// Positions stand still while nothing is published, at least in the memory adapter. A node does not
// remember memberships for longer because of that.
func TestEndedMembershipsAfterAQuietNight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, err := NewServer(Options{})
		must(t, err)
		defer func() { must(t, srv.Close(context.Background())) }()
		must(t, srv.Emit(t.Context(), "e"))
		time.Sleep(8 * time.Hour)
		must(t, srv.Emit(t.Context(), "e"))
		synctest.Wait()
		if behind := time.Duration(srv.feed.behind.Load()); behind > time.Second {
			t.Errorf("the adapter's clock is taken to be behind by %v", behind)
		}
	})
}

// A client attempts to recover again and again, and receives nothing on its connections. A membership that
// ended after its position is not forgotten meanwhile.
func TestEndedMembershipsOfManyAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, err := NewServer(Options{})
		must(t, err)
		defer func() { must(t, srv.Close(context.Background())) }()
		session, connected := srv.connectByPolling("")
		id, pid := between(connected, `"sid":"`), between(connected, `"pid":"`)
		must(t, srv.Socket(id).Join(t.Context(), "r", "stays"))
		must(t, srv.To("stays").Emit(t.Context(), "n", 0))
		_, got := srv.exchange("GET", session, "")
		offset := between(got, `["n",0,"`)
		must(t, srv.To("r").Emit(t.Context(), "n", 1)) // which it does not receive
		synctest.Wait()                                // its node does
		must(t, srv.Socket(id).Leave(t.Context(), "r"))
		for begun := time.Now(); time.Since(begun) < 3*srv.opts.memory(); {
			time.Sleep(time.Minute) // the connection has ended by then
			session, again := srv.connectByPolling(fmt.Sprintf(`{"pid":%q,"offset":%q}`, pid, offset))
			if !strings.Contains(again, `["n",`) {
				_, missed := srv.exchange("GET", session, "")
				again += missed
			}
			if between(again, `"sid":"`) != id || !strings.Contains(again, `["n",1,`) {
				t.Fatalf("got %s after %v, want socket %s and the event after %s", again, time.Since(begun), id, offset)
			}
		}
	})
}

// A partition's clock is behind all the time, and is then set right. What it was just before still counts.
func TestClockThatIsSetRightLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, err := NewServer(Options{})
		must(t, err)
		defer func() { must(t, srv.Close(context.Background())) }()
		memory := srv.opts.memory()
		note := func(behind time.Duration) {
			srv.feed.noteClock(adapter.Position{Ms: uint64(time.Now().Add(-behind).UnixMilli())}, memory)
			time.Sleep(time.Second)
		}
		note(600*time.Second + time.Millisecond) // later ones are not larger
		for range int(memory.Seconds()) - 2 {
			note(600 * time.Second)
		}
		for range 5 { // a membership ends here, and the clock is set right
			note(0)
		}
		if behind := time.Duration(srv.feed.behind.Load()); behind < 600*time.Second {
			t.Errorf("behind by %v, want 600 s: a membership that ended 5 s ago is forgotten", behind)
		}
	})
}

// While its connection is not read, a client may have been gone for as long: memberships that ended
// meanwhile are not forgotten.
func TestEndedMembershipsDuringALongPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, err := NewServer(Options{})
		must(t, err)
		defer func() { must(t, srv.Close(context.Background())) }()
		_, connected := srv.connectByPolling("")
		sock := srv.Socket(between(connected, `"sid":"`))
		sock.client.conn.Pause()
		must(t, sock.Join(t.Context(), "r"))
		must(t, sock.Leave(t.Context(), "r"))
		for begun := time.Now(); time.Since(begun) < 2*srv.opts.memory(); {
			time.Sleep(time.Minute)
			sock.client.conn.Pause() // the pause continues, because handlers are slow
		}
		sock.mu.Lock()
		defer sock.mu.Unlock()
		if sock.forget(); len(sock.rooms.named["r"]) == 0 {
			t.Error("forgotten")
		}
	})
}

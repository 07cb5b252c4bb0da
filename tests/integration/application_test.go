package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// The built-in application, row by row of its table, with both clients.

// A trio is three clients in one namespace of a node of their own.
type trio struct {
	*testing.T
	a, b, c *npmSocket
}

func forApplication(t *testing.T, test func(t trio)) {
	t.Parallel()
	forVersions(t, func(t *testing.T, version string) {
		n := startNode(t)
		d := startDriver(t)
		test(trio{t,
			d.open("a", version, n.url(), nil),
			d.open("b", version, n.url(), nil),
			d.open("c", version, n.url(), nil),
		})
	})
}

// settled checks that the clients have got no further events: the event sent now
// is the next that each gets.
func (t trio) settled() {
	t.Helper()
	for _, s := range []*npmSocket{t.a, t.b, t.c} {
		s.call("self", "settled")
		s.hears("settled")
	}
}

func TestJoinAndLeave(t *testing.T) {
	forApplication(t, func(t trio) {
		if got := t.a.call("join", "x").Rooms; !slices.Equal(got, []string{"x"}) {
			t.Errorf("rooms %q", got)
		}
		got := t.a.call("join", []string{"y", "z", "x"}).Rooms
		if slices.Sort(got); !slices.Equal(got, []string{"x", "y", "z"}) {
			t.Errorf("rooms %q", got)
		}
		t.b.call("to", "y", "heard")
		t.a.hears("heard")
		if got := t.a.call("leave", []string{"x", "y", "never joined"}).Rooms; !slices.Equal(got, []string{"z"}) {
			t.Errorf("rooms %q", got)
		}
		t.b.call("to", []string{"x", "y"}, "not heard")
		t.settled()
	})
}

func TestTo(t *testing.T) {
	forApplication(t, func(t trio) {
		t.a.call("join", []string{"x", "y"})
		t.b.call("join", []string{"x", "y"})
		if r := t.a.call("to", "x", "one room", 1); r.Offset == "" {
			t.Error("no offset")
		}
		t.b.hears("one room", "1")
		t.a.call("to", []string{"x", "y"}, "two rooms, once", "arg", nil)
		t.b.hears("two rooms, once", `"arg"`, "null")
		t.c.call("to", "x", "from outside")
		t.a.hears("from outside")
		t.b.hears("from outside")
		t.a.call("to", "empty room", "for nobody")
		t.settled()
	})
}

func TestBroadcastAllSelfPrivate(t *testing.T) {
	forApplication(t, func(t trio) {
		t.a.call("broadcast", "all but me", "x")
		t.b.hears("all but me", `"x"`)
		t.c.hears("all but me", `"x"`)
		t.a.call("all", "everyone")
		for _, s := range []*npmSocket{t.a, t.b, t.c} {
			s.hears("everyone")
		}
		t.a.call("self", "only me", 1, 2, 3)
		t.a.hears("only me", "1", "2", "3")
		t.a.call("private", t.b.state().ID, "psst", map[string]any{"k": []int{1}})
		t.b.hears("psst", `{"k":[1]}`)
		t.settled()
		// A client that joins a room of that name does not receive them.
		t.c.call("join", t.b.state().ID)
		t.a.call("private", t.b.state().ID, "psst again")
		t.b.hears("psst again")
		t.settled()
	})
}

func TestEcho(t *testing.T) {
	forApplication(t, func(t trio) {
		for _, args := range [][]any{{}, {1}, {"a", nil, []any{true}}, {bytesArg("00ff")}} {
			got := t.a.ask(append([]any{"echo"}, args...)...)
			if len(got) != len(args) {
				t.Errorf("%v is answered with %s", args, got)
			}
		}
		if got := fmt.Sprintf("%s", t.a.ask("echo", "<b>", 1.5, map[string]any{"k": "v"})); got != `["<b>" 1.5 {"k":"v"}]` {
			t.Errorf("got %s", got)
		}
		t.settled()
	})
}

func TestNoAckNoAnswer(t *testing.T) {
	forApplication(t, func(t trio) {
		t.a.emit("join", "x")
		t.a.emit("echo", 1)
		t.a.emit("no such event")
		t.a.emit("to", "x", "disconnect")
		t.a.emit("self", "heard")
		t.a.hears("heard")
		t.settled()
	})
}

func TestHistory(t *testing.T) {
	forApplication(t, func(t trio) {
		t.a.call("join", "x")
		if r := t.a.call("history", "x", map[string]any{}); len(r.Events) != 0 || r.More {
			t.Errorf("an empty room has history: %+v", r)
		}
		offsets := make([]string, 10)
		for i := range offsets {
			offsets[i] = t.b.call("to", "x", "n", i, bytesArg("0a")).Offset
		}
		for i := range offsets {
			t.a.hears("n", fmt.Sprint(i), `{"$bytes":"0a"}`)
		}
		all := t.a.call("history", "x", map[string]any{"limit": 200})
		if len(all.Events) != 10 || all.More {
			t.Fatalf("history: %d events, more %v", len(all.Events), all.More)
		}
		for i, e := range all.Events {
			if e.Offset != offsets[i] || e.Event != "n" || len(e.Args) != 2 || string(e.Args[0]) != fmt.Sprint(i) || string(e.Args[1]) != `{"$bytes":"0a"}` || len(e.At) == 0 {
				t.Errorf("event %d: %+v", i, e)
			}
		}
		page := t.a.call("history", "x", map[string]any{"limit": 3, "before": offsets[5]})
		if len(page.Events) != 3 || page.Events[2].Offset != offsets[4] || !page.More {
			t.Errorf("the page before the sixth: %+v", page)
		}
		first := t.a.call("history", "x", map[string]any{"limit": 3, "before": offsets[2]})
		if len(first.Events) != 2 || first.More {
			t.Errorf("the first page: %+v", first)
		}
		if got := t.a.call("history", "x"); len(got.Events) != 10 {
			t.Errorf("without limits: %d events", len(got.Events))
		}
		t.settled()
	})
}

// Stock clients take at most ten attachments in a packet, so a page has no more.
func TestHistoryOfBinaryEvents(t *testing.T) {
	forApplication(t, func(t trio) {
		t.a.call("join", "x")
		for i := range 12 {
			t.b.call("to", "x", "n", i, bytesArg("0a"))
		}
		newer := t.a.call("history", "x")
		if len(newer.Events) != 10 || !newer.More {
			t.Fatalf("%d events, more %v, want 10 and more", len(newer.Events), newer.More)
		}
		older := t.a.call("history", "x", map[string]any{"before": newer.Events[0].Offset})
		if len(older.Events) != 2 || older.More || string(older.Events[1].Args[1]) != `{"$bytes":"0a"}` {
			t.Errorf("the page before: %+v", older)
		}
	})
}

func TestMembers(t *testing.T) {
	forApplication(t, func(t trio) {
		t.a.call("join", "x")
		t.b.call("join", "x")
		r := t.a.call("members", "x")
		var got []string
		for _, m := range r.Members {
			got = append(got, m.ID)
		}
		want := []string{t.a.state().ID, t.b.state().ID}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) || r.Partial {
			t.Errorf("got %q, want %q, partial %v", got, want, r.Partial)
		}
	})
}

func TestFailures(t *testing.T) {
	forApplication(t, func(t trio) {
		t.a.call("join", "x")
		long := strings.Repeat("r", 201)
		many := make([]string, 1001)
		for i := range many {
			many[i] = fmt.Sprint(i)
		}
		for _, f := range []struct {
			code string
			args []any
		}{
			{"unknown_event", []any{"no such event", 1}},
			{"bad_request", []any{"join"}},
			{"bad_request", []any{"join", 7}},
			{"bad_request", []any{"join", ""}},
			{"bad_request", []any{"join", long}},
			{"bad_request", []any{"join", []any{}}},
			{"bad_request", []any{"join", []any{"x", 7}}},
			{"bad_request", []any{"join", map[string]any{}}},
			{"too_many", []any{"join", many}},
			{"bad_request", []any{"leave", nil}},
			{"bad_request", []any{"to"}},
			{"bad_request", []any{"to", "x"}},
			{"bad_request", []any{"to", "x", 7}},
			{"bad_request", []any{"to", []any{}, "event"}},
			{"bad_request", []any{"broadcast"}},
			{"bad_request", []any{"all", map[string]any{}}},
			{"bad_request", []any{"private", 7, "event"}},
			{"bad_request", []any{"private", "id"}},
			{"bad_request", []any{"private", strings.Repeat("x", 201), "event"}},
			{"reserved_event", []any{"self", "connect"}},
			{"reserved_event", []any{"all", "disconnect"}},
			{"reserved_event", []any{"to", "x", "connect_error"}},
			{"reserved_event", []any{"broadcast", "disconnecting"}},
			{"reserved_event", []any{"private", "id", "newListener"}},
			{"reserved_event", []any{"self", "removeListener"}},
			{"not_member", []any{"history", "y", map[string]any{}}},
			{"not_member", []any{"members", "y"}},
			{"bad_request", []any{"history"}},
			{"bad_request", []any{"history", "x", map[string]any{"limit": 201}}},
			{"bad_request", []any{"history", "x", map[string]any{"limit": 0}}},
			{"bad_request", []any{"history", "x", map[string]any{"before": "rubbish"}}},
			{"bad_request", []any{"members", 7}},
		} {
			if r := t.a.try(f.args...); r.OK || r.Code != f.code || r.Message == "" {
				t.Errorf("%.60v: got %+v, want %s", f.args, r, f.code)
			}
		}
		t.settled()
	})
}

// TestTooManyRooms: a socket is in so many rooms and no more.
func TestTooManyRooms(t *testing.T) {
	forApplication(t, func(t trio) {
		for batch := 0; ; batch++ {
			rooms := make([]string, 500)
			for i := range rooms {
				rooms[i] = fmt.Sprintf("%d/%d", batch, i)
			}
			r := t.a.try("join", rooms)
			if r.OK && batch < 100 {
				continue
			}
			if r.Code != "too_many" {
				t.Errorf("after %d rooms: %+v", batch*500, r)
			}
			return
		}
	})
}

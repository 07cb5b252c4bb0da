package integration

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// answering is an answer that admits every client, as the user and in the rooms that it names, and answers
// each event with text.
func answering(event func(w http.ResponseWriter, q asked)) func(w http.ResponseWriter, q asked) {
	return func(w http.ResponseWriter, q asked) {
		if q.Type == "rejoin.connect" {
			say(w, http.StatusOK, `{"user":%q,"can":{"join":["*"],"to":["*"]},"good":60}`, q.Auth["name"])
			return
		}
		event(w, q)
	}
}

// as returns the options of a client with a name, on a WebSocket.
func as(name string) map[string]any {
	return map[string]any{"transports": []string{"websocket"}, "auth": map[string]any{"name": name}}
}

// TestHookEvent: the backend handles events. Its answer acks, emits, joins, leaves, sets data and
// disconnects, in this order.
func TestHookEvent(t *testing.T) {
	t.Parallel()
	forVersions(t, func(t *testing.T, version string) {
		b, variables := startBackend(t, answering(func(w http.ResponseWriter, q asked) {
			switch q.Event {
			case "order:place":
				say(w, http.StatusOK, `{"leave":["browsing"],"join":["order:42"],"data":{"orders":1},
					"emits":[{"rooms":["shop"],"event":"order:new","args":[42],"exceptSelf":true},{"rooms":["order:42"],"event":"status","args":["new"]},
						{"self":true,"event":"hint","args":[{"a":"<&>"}]}],
					"ack":[{"ok":true,"order":42},"thanks"]}`)
			case "order:nothing":
				w.WriteHeader(http.StatusNoContent)
			case "order:error":
				say(w, http.StatusOK, `{"error":{"code":"sold_out","message":"Sorry"}}`)
			case "order:refused":
				say(w, http.StatusConflict, `{"code":"sold_out","detail":"Sorry"}`)
			case "order:leave":
				say(w, http.StatusOK, `{"disconnect":true,"ack":["bye"]}`)
			case "self":
				say(w, http.StatusOK, `{"ack":["of the backend"]}`)
			default:
				say(w, http.StatusOK, `{"ack":[null]}`)
			}
		}))
		n := b.startNode(append(variables, "REJOIN_HOOK_CONNECT=true", "REJOIN_HOOK_EVENTS=order:*,self", withAPI)...)
		d := startDriver(t)
		ann, bob := d.open("ann", version, n.url(), as("ann")), d.open("bob", version, n.url(), as("bob"))
		ann.call("join", []string{"shop", "browsing"})
		bob.call("join", "shop")

		if got := fmt.Sprintf("%s", ann.ask("order:place", map[string]any{"sku": 1}, bytesArg("00ff"))); got != `[{"ok":true,"order":42} "thanks"]` {
			t.Errorf("acked %s", got)
		}
		ann.hears("status", `"new"`) // both before the ack
		ann.hears("hint", `{"a":"<&>"}`)
		bob.hears("order:new", "42")
		text := n.backend().get("sockets?user=ann").text
		if !strings.Contains(text, `"rooms":["order:42","shop","user:ann"]`) || !strings.Contains(text, `"data":{"orders":1}`) {
			t.Errorf("ann is %s", text)
		}
		var q struct {
			Socket struct {
				ID, User, Address string
				Rooms             []string
				RoomCount         int
			}
			Args        json.RawMessage
			Attachments [][]byte
			Ack         bool
		}
		if err := json.Unmarshal(b.questions("rejoin.event")[0].body, &q); err != nil {
			t.Fatal(err)
		}
		if q.Socket.ID != ann.state().ID || q.Socket.User != "ann" || q.Socket.Address != "127.0.0.1" || !q.Ack ||
			fmt.Sprint(q.Socket.Rooms) != "[browsing shop user:ann]" || q.Socket.RoomCount != 3 ||
			string(q.Args) != `[{"sku":1},{"_placeholder":true,"num":0}]` || fmt.Sprint(q.Attachments) != "[[0 255]]" {
			t.Errorf("the question: %+v", q)
		}
		for event, want := range map[string]string{
			"order:nothing": `[{"ok":true}]`,
			"order:error":   `[{"ok":false,"code":"sold_out","message":"Sorry"}]`,
			"order:refused": `[{"ok":false,"code":"sold_out","message":"Sorry"}]`,
			"order:null":    `[null]`,
			"self":          `["of the backend"]`, // although the node knows it
		} {
			if got := fmt.Sprintf("%s", ann.ask(event)); got != want {
				t.Errorf("%s: acked %s, want %s", event, got, want)
			}
		}
		if r := ann.try("other"); r.Code != "unknown_event" {
			t.Errorf("an event of nobody: %+v", r)
		}
		if got := fmt.Sprintf("%s", ann.ask("order:leave")); got != `["bye"]` {
			t.Errorf("acked %s", got)
		}
		if r := ann.await("disconnect"); r.Reason != "io server disconnect" {
			t.Errorf("disconnected: %v", r)
		}
	})
}

// TestHookEventFails: whatever the backend does, the client's ack gets an error that says whether the
// event may have been processed, and the client stays connected. No event is asked about twice.
func TestHookEventFails(t *testing.T) {
	t.Parallel()
	emit := func(text string) func(http.ResponseWriter, asked) {
		return func(w http.ResponseWriter, _ asked) {
			say(w, http.StatusOK, `{"emits":[{"self":true,"event":"good"},%s]}`, text)
		}
	}
	b, variables := startBackend(t, nil)
	n := b.startNode(append(variables, "REJOIN_HOOK_EVENTS=*", "REJOIN_HOOK_TIMEOUT=500ms")...)
	d := startDriver(t)
	s := d.open("s", newest, n.url(), transports["websocket"])
	for name, test := range map[string]struct {
		answer func(w http.ResponseWriter, q asked)
		code   string
		may    bool
	}{
		"500":                {func(w http.ResponseWriter, _ asked) { w.WriteHeader(500) }, "unavailable", true},
		"dead":               {func(http.ResponseWriter, asked) { panic(http.ErrAbortHandler) }, "unavailable", true},
		"slow":               {func(_ http.ResponseWriter, q asked) { <-q.gone }, "timeout", true},
		"busy":               {func(w http.ResponseWriter, _ asked) { w.WriteHeader(429) }, "busy", false},
		"busy for long":      {func(w http.ResponseWriter, _ asked) { w.Header().Set("Retry-After", "9"); w.WriteHeader(503) }, "busy", false},
		"redirect":           {func(w http.ResponseWriter, _ asked) { w.Header().Set("Location", "/hooks"); w.WriteHeader(307) }, "hook_failed", true},
		"html":               {func(w http.ResponseWriter, _ asked) { fmt.Fprint(w, "<html>") }, "hook_failed", true},
		"malformed":          {func(w http.ResponseWriter, _ asked) { say(w, 200, `{"akc":[]}`) }, "hook_failed", true},
		"emit without event": {emit(`{"self":true}`), "hook_failed", true},
		"emit to nobody":     {emit(`{"event":"x"}`), "hook_failed", true},
		"emit to two":        {emit(`{"self":true,"rooms":["a"],"event":"x"}`), "hook_failed", true},
		"reserved event":     {emit(`{"self":true,"event":"connect"}`), "hook_failed", true},
		"unknown namespace":  {emit(`{"namespace":"/x","everyone":true,"event":"x"}`), "hook_failed", true},
		"unknown field":      {emit(`{"self":true,"event":"x","to":"a"}`), "hook_failed", true},
		"too deep":           {emit(`{"self":true,"event":"x","args":[` + strings.Repeat("[", 600) + strings.Repeat("]", 600) + `]}`), "hook_failed", true},
		"endless": {func(w http.ResponseWriter, _ asked) {
			w.Header().Set("Content-Type", "application/json")
			for part := strings.Repeat(" ", 1<<16); ; {
				if _, err := fmt.Fprint(w, part); err != nil {
					return
				}
			}
		}, "hook_failed", true},
	} {
		b.answers(test.answer)
		before := len(b.questions("rejoin.event"))
		var r struct {
			OK              bool
			Code, Message   string
			MayHaveHappened bool
		}
		if err := json.Unmarshal(s.ask("x")[0], &r); err != nil {
			t.Fatal(err)
		}
		if r.OK || r.Code != test.code || r.MayHaveHappened != test.may || r.Message == "" {
			t.Errorf("%s: acked %+v, want %s, may have been processed: %v", name, r, test.code, test.may)
		}
		if asked := len(b.questions("rejoin.event")) - before; asked != 1 {
			t.Errorf("%s: asked %d times", name, asked)
		}
		b.answers(func(w http.ResponseWriter, _ asked) { say(w, http.StatusOK, `{}`) })
		if r := s.try("reset"); !r.OK { // and the breaker stays closed
			t.Errorf("after %s: %+v", name, r)
		}
	}
	if st := s.state(); !st.Connected {
		t.Errorf("the client was disconnected: %+v", st)
	}
	s.call("self", "settled")
	s.hears("settled") // nothing of a malformed answer was executed
	b.Close()
	code := s.try("x").Code
	if code == "unavailable" { // it was sent on a connection that was being closed
		code = s.try("x").Code
	}
	if code != "busy" {
		t.Errorf("while nothing listens: %s", code)
	}
}

// TestHookOrder: the events of a socket come to the backend one at a time, in their order, each once,
// however long the answers take.
func TestHookOrder(t *testing.T) {
	t.Parallel()
	var sockets [4]struct{ next, running atomic.Int32 }
	b, variables := startBackend(t, answering(func(w http.ResponseWriter, q asked) {
		var who, n int
		if json.Unmarshal(q.Args[0], &who) != nil || json.Unmarshal(q.Args[1], &n) != nil {
			t.Errorf("question %s", q.body)
		}
		s := &sockets[who]
		if running, next := s.running.Add(1), s.next.Add(1)-1; running != 1 || int(next) != n {
			t.Errorf("socket %d: event %d came as number %d, beside %d others", who, n, next, running-1)
		}
		time.Sleep(rand.N(3 * time.Millisecond))
		s.running.Add(-1)
		say(w, http.StatusOK, `{"emits":[{"self":true,"event":"done","args":[%d]}]}`, n)
	}))
	n := b.startNode(append(variables, "REJOIN_HOOK_EVENTS=work", "REJOIN_HOOK_TIMEOUT=20s")...)
	const events = 200
	var clients []*npmSocket
	for i := range sockets {
		d := startDriver(t)
		clients = append(clients, d.open(fmt.Sprint("s", i), newest, n.url(), transports["websocket"]))
	}
	for i := range events {
		for who, s := range clients {
			s.emit("work", who, i)
		}
	}
	for who, s := range clients {
		for i := range events {
			s.hears("done", fmt.Sprint(i))
		}
		if got := sockets[who].next.Load(); got != events {
			t.Errorf("socket %d: %d questions, want %d", who, got, events)
		}
	}
}

// TestHookIsSlow: a socket with a backend that is too slow for it gets busy for what it has sent too
// early, soon, and nothing is closed. Other clients and events are not affected.
func TestHookIsSlow(t *testing.T) {
	t.Parallel()
	b, variables := startBackend(t, answering(func(_ http.ResponseWriter, q asked) { <-q.gone }))
	n := b.startNode(append(variables, "REJOIN_HOOK_EVENTS=*", "REJOIN_HOOK_TIMEOUT=300ms")...)
	d := startDriver(t)
	s := d.open("s", newest, n.url(), transports["websocket"])
	other := startDriver(t).open("other", newest, n.url(), transports["websocket"])
	codes := make(chan string, 500)
	for range cap(codes) {
		go func() { codes <- s.try("x").Code }()
	}
	other.call("self", "meanwhile")
	other.hears("meanwhile")
	counts := map[string]int{}
	for range cap(codes) {
		counts[<-codes]++
	}
	if counts["busy"] < cap(codes)-100 || counts["busy"]+counts["timeout"] != cap(codes) {
		t.Errorf("codes %v", counts)
	}
	if got := n.metrics()[`rejoin_limited_total{limit="hook_lag"}`]; got == 0 {
		t.Error("no event counted as late")
	}
	s.call("self", "afterwards")
	s.hears("afterwards")
}

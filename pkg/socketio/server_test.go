package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

func TestEventsReachTheirTargets(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	a, b, c := n.client(t), n.client(t), n.client(t)
	a.call(`["join","r"]`)
	b.call(`["join","r"]`)
	sender := n.Socket(a.sid)
	must(t, n.Emit(t.Context(), "everyone", 1))
	must(t, n.To("r").Emit(t.Context(), "room", 2))
	must(t, sender.To("r").Emit(t.Context(), "room but sender", 3))
	must(t, sender.Broadcast().Emit(t.Context(), "all but sender", 4))
	must(t, sender.Emit(t.Context(), "sender", 5))
	must(t, n.Except("r").Emit(t.Context(), "outside", 6))
	must(t, n.ToSocket(b.sid).Emit(t.Context(), "private", 7))
	must(t, n.To().Emit(t.Context(), "nobody", 8))
	a.want(`["everyone",1]`, `["room",2]`, `["sender",5]`)
	b.want(`["everyone",1]`, `["room",2]`, `["room but sender",3]`, `["all but sender",4]`, `["private",7]`)
	c.want(`["everyone",1]`, `["all but sender",4]`, `["outside",6]`)
	for _, w := range []*wire{a, b, c} {
		w.quiet()
	}
}

func TestARoomNamedLikeASocketIsNotItsOwn(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	a, spy := n.client(t), n.client(t)
	spy.call(`["join","` + a.sid + `"]`)
	must(t, n.ToSocket(a.sid).Emit(t.Context(), "secret"))
	must(t, n.To(a.sid).Emit(t.Context(), "named"))
	a.want(`["secret"]`)
	spy.want(`["named"]`)
	a.quiet()
	spy.quiet()
}

func TestAcksOfOneAndOfMany(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	a, b := n.client(t), n.client(t)
	ask := func(reply string, w *wire) {
		m := w.next() // 42<id>["q"]: no offset, because it would precede the ack function
		id, body, _ := strings.Cut(strings.TrimPrefix(m, "42"), "[")
		if body != `"q"]` {
			t.Errorf("asked %q", m)
		}
		w.write("43" + id + reply)
	}
	got := make(map[string]string)
	done := make(chan error, 1)
	go func() {
		var last error
		answers, err := n.EmitWithAck(t.Context(), "q")
		if err != nil {
			done <- err
			return
		}
		for answer, err := range answers.All() {
			if err != nil {
				last = err
				break
			}
			got[answer.SocketID] = string(answer.Raw(0))
		}
		done <- last
	}()
	ask(`["one"]`, a)
	ask(`[]`, b) // an ack without a value is an ack
	must(t, <-done)
	if len(got) != 2 || got[a.sid] != `"one"` || got[b.sid] != "" {
		t.Errorf("answers %v", got)
	}

	go func() {
		args, err := n.Socket(a.sid).EmitWithAck(t.Context(), "q")
		var s string
		done <- errors.Join(err, args.Bind(&s))
		if s != "again" {
			t.Errorf(`acked %q, want "again"`, s)
		}
	}()
	ask(`["again"]`, a)
	must(t, <-done)
}

func TestAckEndsWithTheSocket(t *testing.T) {
	n := start(t, Options{})
	a := n.client(t)
	done := make(chan error, 1)
	go func() {
		_, err := n.Socket(a.sid).EmitWithAck(t.Context(), "q")
		done <- err
	}()
	a.next()
	a.cut()
	if err := <-done; !errors.Is(err, ErrDisconnected) {
		t.Errorf("got %v, want ErrDisconnected", err)
	}
}

func TestAckErrorNamesSilentSockets(t *testing.T) {
	n := start(t, Options{})
	a, b := n.client(t), n.client(t)
	go func() {
		m := a.next()
		a.write("43" + strings.TrimSuffix(strings.TrimPrefix(m, "42"), `["q"]`) + `[1]`)
	}()
	var answered []string
	var silent *UnansweredError
	answers, err := n.Timeout(time.Second).EmitWithAck(t.Context(), "q")
	must(t, err)
	for answer, err := range answers.All() {
		if err != nil {
			if !errors.As(err, &silent) {
				t.Fatal(err)
			}
			break
		}
		answered = append(answered, answer.SocketID)
	}
	if len(answered) != 1 || answered[0] != a.sid || silent == nil || len(silent.Sockets) != 1 || silent.Sockets[0] != b.sid {
		t.Errorf("answered %v, silent %+v", answered, silent)
	}
	if !errors.Is(silent, context.DeadlineExceeded) {
		t.Errorf("got %v, want context.DeadlineExceeded", silent)
	}
}

func TestMiddlewareRefuses(t *testing.T) {
	n := start(t, Options{})
	n.Use(func(_ context.Context, r *ConnectRequest) error {
		var auth struct{ Token string }
		if err := r.Auth(&auth); err != nil || auth.Token != "good" {
			return &ConnectError{Message: "not you", Data: map[string]int{"code": 7}}
		}
		return r.Emit("early")
	})
	w := n.dial(t)
	w.write("40")
	if m := w.next(); m != `44{"message":"not you","data":{"code":7}}` {
		t.Fatalf("got %q, want %q", m, `44{"message":"not you","data":{"code":7}}`)
	}
	w.write(`40{"token":"good"}`)
	if m := w.next(); m != `42["early",null]` {
		t.Fatalf("got %q before CONNECT, want %q", m, `42["early",null]`)
	}
	if m := w.next(); !strings.HasPrefix(m, `40{"sid":`) {
		t.Fatalf("got %q", m)
	}
	w.write("40/nope,")
	if m := w.next(); m != `44/nope,{"message":"Invalid namespace"}` {
		t.Fatalf("got %q, want %q", m, `44/nope,{"message":"Invalid namespace"}`)
	}
}

func TestDisconnectEventsAreOrdered(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	told := make(chan string, 10)
	n.OnConnect(func(s *Socket) {
		s.OnDisconnecting(func(r Reason) { told <- "disconnecting " + string(r) + " " + strings.Join(s.Rooms(), ",") })
		s.OnDisconnect(func(r Reason) {
			told <- "disconnect " + string(r) + " " + strings.Join(s.Rooms(), ",")
			if s.Connected() || s.Context().Err() == nil {
				t.Error("connected in OnDisconnect")
			}
		})
	})
	for reason, how := range map[Reason]func(*wire, *Socket){
		ClientDisconnect: func(w *wire, _ *Socket) { w.write("41") },
		ServerDisconnect: func(_ *wire, s *Socket) { s.Disconnect(false) },
		ForcedClose:      func(w *wire, _ *Socket) { w.write("40") },
	} {
		w := n.client(t)
		w.call(`["join","r"]`)
		how(w, n.Socket(w.sid))
		for _, want := range []string{"disconnecting " + string(reason) + " r", "disconnect " + string(reason) + " "} {
			select {
			case got := <-told:
				if got != want {
					t.Errorf("told %q, want %q", got, want)
				}
			case <-time.After(patience):
				t.Fatalf("never told %q", want)
			}
		}
	}
}

func TestAnEventCanComeWithItsConnect(t *testing.T) {
	n := start(t, Options{})
	hold := make(chan struct{})
	n.Use(func(context.Context, *ConnectRequest) error { <-hold; return nil })
	joining(n.Namespace)
	w := n.dial(t)
	w.write("40")
	w.write(`420["ping me"]`)
	close(hold)
	if m := w.next(); !strings.HasPrefix(m, "40") {
		t.Fatalf(`got %q, want text that begins with "40"`, m)
	}
	if m := w.next(); m != "430[]" {
		t.Fatalf(`got %q, want "430[]"`, m)
	}
}

func TestConcurrentConnectsMakeNoSocket(t *testing.T) {
	n := start(t, Options{})
	hold := make(chan struct{})
	n.Use(func(ctx context.Context, _ *ConnectRequest) error {
		select {
		case <-hold:
		case <-ctx.Done():
		}
		return nil
	})
	w := n.dial(t)
	w.write("40")
	w.write("40")
	select {
	case <-w.closed:
	case <-time.After(patience):
		t.Fatal("the connection lives")
	}
	close(hold)
	eventually(t, "no client is connected", func() bool { return n.Len() == 0 })
}

func TestDynamicNamespacesAreCreatedAndRemoved(t *testing.T) {
	n := start(t, Options{})
	p := n.OfFunc(func(_ context.Context, name string, auth json.RawMessage) (bool, error) {
		return strings.HasPrefix(name, "/room-"), nil
	})
	var made []string
	n.OnNamespace(func(n *Namespace) { made = append(made, n.Name()) })
	joining2 := func(_ context.Context, e *Event) error { return e.Ack(e.Socket().Namespace().Name()) }
	p.On("where", joining2)
	w := n.dial(t).connect("/room-7", "")
	if got := w.call(`["where"]`); got != `["/room-7"]` {
		t.Errorf("acked %s, want %s", got, `["/room-7"]`)
	}
	must(t, p.Emit(t.Context(), "hi"))
	w.want(`["hi"]`)
	w.write("41/room-7,")
	eventually(t, "the namespace is gone", func() bool { return n.lookup("/room-7") == nil })
	if len(made) != 1 || made[0] != "/room-7" {
		t.Errorf("made %v", made)
	}
}

func TestCatchAllsAreAddedAndRemoved(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	var mu sync.Mutex
	var heard []string
	hear := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, what)
	}
	heardNow := func() string {
		mu.Lock()
		defer mu.Unlock()
		return fmt.Sprint(heard)
	}
	n.OnConnect(func(s *Socket) {
		s.OnAny(func(_ context.Context, e *Event) error { hear("in " + e.Name); return nil })
		s.OnAnyOutgoing(func(event string, _ Args) { hear("out " + event) })
		s.On("stop", func(_ context.Context, e *Event) error {
			s.OffAny()
			s.OffAnyOutgoing()
			return e.Ack()
		})
	})
	w := n.client(t)
	for range 2 {
		w.call(`["ping me"]`)
		must(t, n.Emit(t.Context(), "news"))
		w.want(`["news"]`)
		eventually(t, "it is received", func() bool { return strings.HasPrefix(heardNow(), "[in ping me out news") })
		w.call(`["stop"]`)
	}
	if got := heardNow(); got != "[in ping me out news in stop]" {
		t.Errorf("got events %s, want [in ping me out news in stop]", got)
	}
}

func TestReservedEventsAreRefused(t *testing.T) {
	n := start(t, Options{})
	if err := n.Emit(t.Context(), "disconnect"); !errors.Is(err, ErrReserved) {
		t.Errorf("got %v, want ErrReserved", err)
	}
}

func TestTwoNodesActAsOne(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n1, n2 := c.node(t, "aaaa", Options{}), c.node(t, "bbbb", Options{})
	joining(n1.Namespace)
	joining(n2.Namespace)
	a, b := n1.client(t), n2.client(t)
	must(t, n1.Emit(t.Context(), "x", 1))
	a.want(`["x",1]`)
	b.want(`["x",1]`)

	n2.OnServerSide("sum", func(_ context.Context, e *Event) error {
		var x, y int
		if err := e.Bind(&x, &y); err != nil {
			return err
		}
		return e.Ack(x + y)
	})
	var answers []string
	sums, err := n1.ServerSideEmitWithAck(t.Context(), "sum", 2, 3)
	must(t, err)
	for answer, err := range sums.All() {
		must(t, err)
		answers = append(answers, string(answer.Node)+"="+string(answer.Raw(0)))
	}
	if len(answers) != 1 || answers[0] != "bbbb=5" {
		t.Errorf("answers %v", answers)
	}

	all, err := n1.FetchSockets(t.Context())
	must(t, err)
	if len(all) != 2 {
		t.Fatalf("fetched %+v", all)
	}
	for _, r := range all {
		if r.ID == b.sid {
			must(t, r.Join(t.Context(), "r"))
		}
	}
	eventually(t, "the remote socket joined", func() bool { return n2.Socket(b.sid).InRoom("r") })
	must(t, n1.To("r").Emit(t.Context(), "in r"))
	b.want(`["in r"]`)
	a.quiet()
	must(t, n1.In("r").SocketsLeave(t.Context(), "r"))
	eventually(t, "the remote socket left", func() bool { return !n2.Socket(b.sid).InRoom("r") })
	must(t, n1.ToSocket(b.sid).DisconnectSockets(t.Context(), false))
	if m := b.next(); m != "41" {
		t.Errorf("got %q, want a DISCONNECT", m)
	}
}

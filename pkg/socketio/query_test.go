package socketio

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A viewed adapter has the view of the cluster that a test sets.
type viewed struct {
	adapter.Adapter
	view  func([]adapter.Member) []adapter.Member
	extra int // counted receivers that do not exist
}

func (v viewed) Nodes(ctx context.Context) ([]adapter.Member, error) {
	members, err := v.Adapter.Nodes(ctx)
	if v.view != nil {
		members = v.view(members)
	}
	return members, err
}

func (v viewed) Publish(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
	r, err := v.Adapter.Publish(ctx, e)
	r.Receivers += v.extra
	return r, err
}

// A stale adapter lists the other nodes as if their feeds had not begun, until the list is read again.
type stale struct{ adapter.Adapter }

func (s stale) Nodes(ctx context.Context) ([]adapter.Member, error) {
	members, err := s.Adapter.Nodes(ctx)
	for i := range members {
		members[i].CatchingUp = members[i].ID != s.Node()
	}
	return members, err
}

func (s stale) FreshNodes(ctx context.Context) ([]adapter.Member, error) { return s.Adapter.Nodes(ctx) }

// A mute adapter sends nothing to other nodes or to itself.
type mute struct {
	adapter.Adapter
	sent atomic.Int32
}

func (m *mute) Send(context.Context, adapter.NodeID, adapter.Message) error {
	m.sent.Add(1)
	return adapter.ErrUnavailable
}

// A node answers its own queries without Redis: the members of a room, and the acks of its
// sockets.
func TestOwnAnswersAreNotSent(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	a, err := c.memory.Node("a")
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	m := &mute{Adapter: a}
	n := start(t, Options{Adapter: m, Sessions: c.sessions})
	joining(n.Namespace)
	var own *Socket
	n.OnConnect(func(s *Socket) { own = s })
	w := n.client(t)
	w.call(`["join","x"]`)
	must(t, own.SetData(t.Context(), []int{1}))
	for range 2 {
		all, err := n.To("x").Timeout(patience).FetchSockets(t.Context())
		if err != nil || len(all) != 1 || all[0].ID != w.sid || all[0].Node != "a" || string(all[0].Data) != "[1]" {
			t.Fatalf("fetched %+v, %v", all, err)
		}
		all[0].Data[1] = '2' // is the caller's
	}
	answers, err := n.To("x").Timeout(patience).EmitWithAck(t.Context(), "q")
	must(t, err)
	id := strings.TrimSuffix(strings.TrimPrefix(w.next(), "42"), `["q"]`)
	w.write("43" + id + `["a"]`)
	for a, err := range answers.All() {
		if err != nil || a.SocketID != w.sid || string(a.Raw(0)) != `"a"` {
			t.Errorf("acked %+v, %v", a, err)
		}
	}
	if n := m.sent.Load(); n != 0 {
		t.Errorf("got %d messages, want 0", n)
	}
}

// viewing runs a server with its own view of the cluster.
func (c *testCluster) viewing(t *testing.T, id adapter.NodeID, v viewed) *testNode {
	t.Helper()
	a, err := c.memory.Node(id)
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	v.Adapter = a
	// No test may wait for the timeout.
	return start(t, Options{Adapter: v, Sessions: c.sessions, AckTimeout: time.Hour})
}

// deaf adds a node that never answers.
func (c *testCluster) deaf(t *testing.T, id adapter.NodeID, hears ...rooms.Room) adapter.Adapter {
	t.Helper()
	a, err := c.memory.Node(id)
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	_, err = a.Subscribe(t.Context(), hears...)
	must(t, err)
	return a
}

// wantPartial checks the end of an incomplete query.
func wantPartial(t *testing.T, err error, cause error, nodes ...adapter.NodeID) {
	t.Helper()
	var silent *UnansweredError
	if !errors.As(err, &silent) || !slices.Equal(silent.Nodes, nodes) || len(silent.Sockets) > 0 || !errors.Is(silent.Err, cause) {
		t.Errorf("got %v, want that %v are silent because of %v", err, nodes, cause)
	}
}

func collect(answers *Answers, err error) (got []Answer, _ error) {
	if err != nil {
		return nil, err
	}
	for a, e := range answers.All() {
		if e != nil {
			return got, e
		}
		got = append(got, a)
	}
	return got, nil
}

// A node without the namespace, or without members, answers.
func TestNodesWithoutSocketsAnswer(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n1 := c.viewing(t, "aaaa", viewed{})
	n2 := c.node(t, "bbbb", Options{})
	n2.Of("/other")
	w := n2.dial(t).connect("/other", "")
	for _, b := range []Broadcast{n1.Of("/other").Everyone(), n1.Of("/other").ToSocket(w.sid, "nobody")} {
		found, err := b.FetchSockets(t.Context())
		if err != nil || len(found) != 1 || found[0].ID != w.sid || found[0].Node != "bbbb" {
			t.Errorf("found %+v, %v", found, err)
		}
	}
	for _, b := range []Broadcast{n1.To(), n1.To("empty"), n1.To("empty", "as well"), n1.Of("/nobody").Everyone(), n1.Except("r")} {
		if found, err := b.FetchSockets(t.Context()); err != nil || len(found) != 0 {
			t.Errorf("found %+v, %v", found, err)
		}
		if got, err := collect(b.EmitWithAck(t.Context(), "anybody?")); err != nil || len(got) != 0 {
			t.Errorf("%+v answered, %v", got, err)
		}
	}
}

// A query does not wait for a counted receiver that does not exist once all nodes have
// answered.
func TestAnAbandonedConnectionIsNotWaitedFor(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n1 := c.viewing(t, "aaaa", viewed{extra: 3})
	n2 := c.node(t, "bbbb", Options{})
	for _, n := range []*testNode{n1, n2} {
		joining(n.Namespace)
		n.client(t).call(`["join","r"]`)
	}
	if found, err := n1.To("r").FetchSockets(t.Context()); err != nil || len(found) != 2 {
		t.Errorf("found %+v, %v", found, err)
	}
}

// A node that is catching up makes a result partial immediately: it may have members and
// may not have received the query.
func TestANodeThatIsCatchingUpIsNotWaitedFor(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n1 := c.viewing(t, "aaaa", viewed{view: func(members []adapter.Member) []adapter.Member {
		for i := range members {
			members[i].CatchingUp = members[i].ID == "deaf"
		}
		return members
	}})
	joining(n1.Namespace)
	c.deaf(t, "deaf")
	w := n1.client(t)
	w.call(`["join","r"]`)
	for _, b := range []Broadcast{n1.Everyone(), n1.To("r"), n1.To("r", "s")} {
		found, err := b.FetchSockets(t.Context())
		if len(found) != 1 {
			t.Errorf("found %+v", found)
		}
		wantPartial(t, err, nil, "deaf")
	}
	_, err := collect(n1.ServerSideEmitWithAck(t.Context(), "who?"))
	wantPartial(t, err, nil, "deaf")
	if found, err := n1.To().FetchSockets(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("no node was queried, and got %+v, %v", found, err)
	}
	if _, err := n1.ToSocket("elsewhere").ackOf(t.Context(), "who?", nil); errors.Is(err, ErrDisconnected) {
		t.Errorf("got %v of a socket that may be connected", err)
	}
}

// The wait for a node's answer ends when the node leaves the cluster or its feed is
// interrupted.
func TestANodeThatIsLostEndsTheWait(t *testing.T) {
	for name, lose := range map[string]func(deaf adapter.Adapter, generation *atomic.Uint64){
		"it leaves":           func(deaf adapter.Adapter, _ *atomic.Uint64) { _ = deaf.Close() },
		"its feed was broken": func(_ adapter.Adapter, generation *atomic.Uint64) { generation.Add(1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(adapter.MemoryOptions{})
			var generation atomic.Uint64
			n1 := c.viewing(t, "aaaa", viewed{view: func(members []adapter.Member) []adapter.Member {
				for i := range members {
					if members[i].ID == "deaf" {
						members[i].Generation = generation.Load()
					}
				}
				return members
			}})
			joining(n1.Namespace)
			deaf := c.deaf(t, "deaf", rooms.InNamed("/", "r"))
			n1.client(t).call(`["join","r"]`)
			type result struct {
				found []RemoteSocket
				err   error
			}
			results := make(chan result, 2)
			for _, b := range []Broadcast{n1.Everyone(), n1.To("r")} {
				go func() {
					found, err := b.FetchSockets(t.Context())
					results <- result{found, err}
				}()
			}
			eventually(t, "both wait", func() bool {
				n1.queries.mu.Lock()
				defer n1.queries.mu.Unlock()
				asked := 0
				for _, q := range n1.queries.open {
					q.mu.Lock()
					asked += len(q.nodes)
					q.mu.Unlock()
				}
				return asked == 2
			})
			lose(deaf, &generation)
			for range 2 {
				r := <-results
				if len(r.found) != 1 {
					t.Errorf("found %+v", r.found)
				}
				wantPartial(t, r.err, nil, "deaf")
			}
		})
	}
}

// If a node is lost whose sockets have yet to ack, their acks are missing, also if the querying node did
// not know it when it sent the query, so that it was never among the known members.
func TestSocketsOfANodeThatIsLostAreNamed(t *testing.T) {
	for _, known := range []bool{true, false} {
		for _, to := range []string{"room", "everyone"} {
			t.Run(fmt.Sprintf("known %v, to %s", known, to), func(t *testing.T) {
				t.Parallel()
				c := newCluster(adapter.MemoryOptions{})
				n1 := c.viewing(t, "aaaa", viewed{view: func(members []adapter.Member) []adapter.Member {
					return slices.DeleteFunc(members, func(m adapter.Member) bool { return m.ID == "deaf" && !known })
				}})
				target := n1.Everyone()
				if to == "room" {
					target = n1.To("r")
				}
				deaf := c.deaf(t, "deaf", rooms.InNamed("/", "r"), rooms.InNodes())
				results := make(chan error, 1)
				go func() {
					_, err := collect(target.Timeout(patience).EmitWithAck(t.Context(), "well?"))
					results <- err
				}()
				ev, err := deaf.Next(t.Context())
				must(t, err)
				header, _ := parseQueryHeader(ev.Ask)
				must(t, deaf.Send(t.Context(), "aaaa", adapter.Message{
					Kind: messageAnswers, ID: header.ID, Data: []byte(`{"first":true,"who":["one","two"]}`),
				}))
				must(t, deaf.Close())
				var silent *UnansweredError
				if err := <-results; !errors.As(err, &silent) || fmt.Sprint(silent.Sockets, silent.Nodes, silent.Err) != "[one two] [] <nil>" {
					t.Errorf("got %v, want sockets one and two to be named", err)
				}
			})
		}
	}
}

// A query that times out returns the answers that have arrived.
func TestSilentNodesAreNamed(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n1, n2 := c.viewing(t, "aaaa", viewed{}), c.node(t, "bbbb", Options{})
	c.deaf(t, "deaf", rooms.InNamed("/", "r"))
	joining(n2.Namespace)
	n2.client(t).call(`["join","r"]`)
	for _, b := range []Broadcast{n1.Everyone(), n1.To("r")} {
		found, err := b.Timeout(time.Second).FetchSockets(t.Context())
		if len(found) != 1 || found[0].Node != "bbbb" {
			t.Errorf("found %+v", found)
		}
		if b.aimed { // the querying node is not subscribed to the room either
			wantPartial(t, err, context.DeadlineExceeded, "aaaa", "deaf")
		} else {
			wantPartial(t, err, context.DeadlineExceeded, "deaf")
		}
	}
}

// progress is that of a query to some nodes, given the cluster's membership, which is fresh or was read
// before.
func progress(q *query, of audience, now []adapter.Member, fresh bool) ([]Answer, bool) {
	q.audience, q.now = of, nil
	if fresh {
		q.now = now
	}
	return q.progress()
}

// unanswered is the error that ends the query.
func unanswered(q *query, of audience, now []adapter.Member, cause error) error {
	q.audience, q.now = of, now
	return q.unanswered(cause)
}

// Answers that are duplicate, late or unrequested are dropped.
func TestAnswersCountOnce(t *testing.T) {
	var all queries
	asked := newQuery()
	all.add(asked)
	id := asked.id
	of := audience{receivers: 1}
	take := func(from adapter.NodeID, data string) {
		all.take(adapter.Message{ID: id, From: from, Data: []byte(data)})
	}
	take("a", `{"acks":[{"who":"x","args":[0]}]}`) // before it listed its sockets
	take("a", `{"first":true,"who":["x","y"]}`)
	take("a", `{"first":true,"who":["z"],"described":[{"id":"z"}]}`)
	take("b", `{"acks":[{"who":"x","args":[0]}]}`)
	if got, complete := progress(asked, of, nil, false); len(got) > 0 || complete {
		t.Errorf("%+v, complete: %v", got, complete)
	}
	take("a", `{"acks":[{"who":"x","args":[1]},{"who":"x","args":[2]},{"who":"z","args":[3]}]}`)
	take("a", `{"acks":[{"who":"x","args":[4]},{"who":"y","unasked":true}]}`)
	got, complete := progress(asked, of, nil, false)
	if !complete || len(got) != 1 || got[0].SocketID != "x" || string(got[0].Raw(0)) != "1" {
		t.Errorf("%+v, complete: %v", got, complete)
	}
	if err := unanswered(asked, of, nil, nil); err != nil {
		t.Error(err)
	}
	all.remove(id)
	take("c", `{"first":true}`)
	if len(asked.nodes) != 1 {
		t.Error("a node that is no longer awaited is counted")
	}
}

// A node that has just joined is not among the members that the querying node knows, but it
// was counted when it got the query. The query waits for its answer until the members have
// been read again.
func TestANewNodeIsWaitedFor(t *testing.T) {
	members := []adapter.Member{{ID: "known"}}
	for _, everyone := range []bool{true, false} {
		var queries queries
		asked := newQuery()
		queries.add(asked)
		id := asked.id
		of := audience{members: members, all: everyone, receivers: 2}
		queries.take(adapter.Message{ID: id, From: "known", Data: []byte(`{"first":true}`)})
		if _, complete := progress(asked, of, members, false); complete {
			t.Errorf("all %v: complete without the new node", everyone)
		}
		if _, complete := progress(asked, of, members, true); !complete {
			t.Errorf("all %v: the query waits for an abandoned connection", everyone)
		}
		queries.take(adapter.Message{ID: id, From: "new", Data: []byte(`{"first":true}`)})
		if _, complete := progress(asked, of, members, false); !complete {
			t.Errorf("all %v: not complete, though both have answered", everyone)
		}
	}
}

// TestAResumedNodeIsWaitedFor: a node whose feed was interrupted when it was listed may be live when
// the query is published. The number of receivers shows it.
func TestAResumedNodeIsWaitedFor(t *testing.T) {
	listed := []adapter.Member{{ID: "known"}, {ID: "resumed", CatchingUp: true}}
	live := []adapter.Member{{ID: "known"}, {ID: "resumed"}}
	interrupted := []adapter.Member{{ID: "known"}, {ID: "resumed", Generation: 1}}
	for _, row := range []struct {
		name      string
		receivers int
		now       []adapter.Member
		fresh     bool
		complete  bool
	}{
		{"received it", 2, listed, false, false},
		{"received it, and is live", 2, live, true, false},
		{"received it, and was interrupted again", 2, interrupted, true, true},
		{"received it, and is interrupted", 2, listed, true, true},
		{"did not receive it", 1, listed, false, true},
		{"did not receive it, and is live since", 1, live, true, true},
	} {
		var queries queries
		asked := newQuery()
		queries.add(asked)
		id := asked.id
		queries.take(adapter.Message{ID: id, From: "known", Data: []byte(`{"first":true}`)})
		of := audience{members: listed, all: true, receivers: row.receivers}
		if _, complete := progress(asked, of, row.now, row.fresh); complete != row.complete {
			t.Errorf("%s: complete: %v, want %v", row.name, complete, row.complete)
		}
	}
}

// TestQueriesToANodeThatHasJustStarted: it may be listed as interrupted for up to a second. It is
// not reported as one that may have missed the query.
func TestQueriesToANodeThatHasJustStarted(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	a, err := c.memory.Node("aaaa")
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	asker := start(t, Options{Adapter: stale{a}, Sessions: c.sessions})
	c.node(t, "new", Options{})
	for name, b := range map[string]Broadcast{"a room without members": asker.To("r"), "everyone": asker.Everyone()} {
		if _, err := b.FetchSockets(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestANewNodeIsNamed: a node that was not among the members yet, got the query and stays
// silent is waited for, and then named.
func TestANewNodeIsNamed(t *testing.T) {
	members := []adapter.Member{{ID: "known"}}
	now := append(members, adapter.Member{ID: "new"})
	for _, everyone := range []bool{true, false} {
		var queries queries
		asked := newQuery()
		queries.add(asked)
		id := asked.id
		of := audience{members: members, all: everyone, receivers: 2}
		queries.take(adapter.Message{ID: id, From: "known", Data: []byte(`{"first":true}`)})
		if _, complete := progress(asked, of, now, true); complete {
			t.Errorf("all %v: complete without the new node", everyone)
		}
		silent := (*UnansweredError)(nil)
		if err := unanswered(asked, of, now, context.DeadlineExceeded); !errors.As(err, &silent) || !slices.Equal(silent.Nodes, []adapter.NodeID{"new"}) {
			t.Errorf("all %v: %v", everyone, err)
		}
		// A socket that has entered later has not received the query, and the requester does not
		// wait for it.
		of.receivers = 1
		if _, complete := progress(asked, of, now, true); !complete {
			t.Errorf("all %v: the query waits for a node that is not a receiver", everyone)
		}
		if err := unanswered(asked, of, now, nil); err != nil {
			t.Errorf("all %v: %v", everyone, err)
		}
	}
}

// TestTheQueryingNodeIsNotWaitedFor: the querying node does not answer itself, so the last
// answer of the others completes the query without another look.
func TestTheQueryingNodeIsNotWaitedFor(t *testing.T) {
	members := []adapter.Member{{ID: "asker"}, {ID: "other"}}
	of := audience{members: members, all: true, receivers: 2}
	var queries queries
	asked := newQuery()
	queries.add(asked)
	id := asked.id
	queries.take(adapter.Message{ID: id, From: "asker", Data: []byte(`{"first":true}`)}) // as it is noted
	if _, complete := progress(asked, of, members, true); complete {
		t.Error("complete without the other node")
	}
	queries.take(adapter.Message{ID: id, From: "other", Data: []byte(`{"first":true}`)})
	if _, complete := progress(asked, of, members, false); !complete {
		t.Error("not complete, though the other node has answered")
	}
	if err := unanswered(asked, of, members, nil); err != nil {
		t.Error(err)
	}
}

// A query that is dropped from the gate of a recovering socket, because too many events are
// held or events were lost, does not wait for that socket.
func TestAQueryBehindTooManyEventsIsNotWaitedFor(t *testing.T) {
	for _, when := range []string{"it is behind them", "it is before them", "the node has lost events behind it"} {
		t.Run(when, func(t *testing.T) {
			c := newCluster(adapter.MemoryOptions{})
			n := c.node(t, "a", Options{AckTimeout: time.Hour, Engine: engineio.Options{SendQueueBytes: 256 << 10}})
			w := n.client(t)
			must(t, n.Emit(t.Context(), "first"))
			w.want(`["first"]`)
			w.cut()
			eventually(t, "it has ended", func() bool { return n.Len() == 0 })
			for i := range largeEvents {
				must(t, n.ToSocket(w.sid).Emit(t.Context(), "r00", large(i)...))
			}
			back := n.backSlow(t, w)
			fill := func() {
				for i := range 5 {
					must(t, n.ToSocket(w.sid).Emit(t.Context(), "r00", large(largeEvents+i)...))
				}
				eventually(t, "its gate has spilled", func() bool {
					s := n.Socket(back.sid)
					s.mu.Lock()
					defer s.mu.Unlock()
					return s.gate.spilled
				})
			}
			filled := 0
			if when == "it is behind them" {
				fill()
				filled = 5
			}
			answers, err := n.EmitWithAck(t.Context(), "question")
			must(t, err)
			switch when {
			case "it is before them":
				fill()
				filled = 5
			case "the node has lost events behind it":
				eventually(t, "it is held", func() bool {
					s := n.Socket(back.sid)
					s.mu.Lock()
					defer s.mu.Unlock()
					return slices.ContainsFunc(s.gate.held, func(d *delivery) bool { return d.responder != nil })
				})
				n.feed.mu.Lock()
				n.lose(&adapter.LostError{Reason: "by the test", Rooms: []rooms.Room{rooms.InEveryone("/")}})
				n.feed.mu.Unlock()
			}
			for a, err := range answers.All() {
				t.Errorf("got %v, %v", a, err)
			}
			for i := range largeEvents + filled {
				if _, got := numberOf(back); got != i {
					t.Fatalf("got %d, want %d", got, i)
				}
			}
		})
	}
}

// A client that has moved to another node may answer a query of the former node. That does not count
// as the answer to a query of the new node.
func TestAnswersToFormerNodes(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	a, b := c.node(t, "a", Options{}), c.node(t, "b", Options{})
	w := a.client(t)
	asked := make(chan error, 1)
	go func() {
		_, err := a.Socket(w.sid).EmitWithAck(t.Context(), "q")
		asked <- err
	}()
	former := w.query()
	w.cut()
	if err := <-asked; err == nil {
		t.Error("a client that has left answers")
	}
	v := b.back(t, w)
	type result struct {
		answer string
		err    error
	}
	got := make(chan result, 1)
	go func() {
		args, err := b.Socket(v.sid).EmitWithAck(t.Context(), "q")
		if err != nil {
			got <- result{"", err}
			return
		}
		got <- result{string(args.Raw(0)), nil}
	}()
	now := v.query()
	v.write("43" + former + `["late"]`)
	v.write("43" + now + `["good"]`)
	if r := <-got; r.answer != `"good"` || r.err != nil {
		t.Errorf("the answer is %s, %v, want %s", r.answer, r.err, `"good"`)
	}
	for _, id := range []string{former, now} {
		if n, err := strconv.ParseInt(id, 10, 32); err != nil || n < 0 {
			t.Errorf("the ack id %s is not a number of 31 bits", id)
		}
	}
}

// A broadcast whose time is up does not wait for answers.
func TestQueryWithoutTime(t *testing.T) {
	n := start(t, Options{AckTimeout: time.Hour})
	n.client(t)
	answers, err := n.Timeout(-time.Second).EmitWithAck(t.Context(), "question")
	if err != nil {
		return // it was not even sent
	}
	for _, err := range answers.All() {
		if err == nil {
			t.Error("an answer came in no time")
		}
	}
}

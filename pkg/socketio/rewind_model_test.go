package socketio

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// TestRewindModel lets a client join rooms with their history, leave them, be cut at any moment and
// recover, while numbered events are published before and after each call with which the node joins a
// room. History and later events together have every number from the first one on, once and in order.
// Only events of a room that the client may have been in before a join can come again.
func TestRewindModel(t *testing.T) {
	for _, partitions := range []int{1, 3} {
		t.Run(fmt.Sprint(partitions, " partitions"), func(t *testing.T) {
			m := newRewindModel(t, partitions)
			rapid.Check(t, m.check)
		})
	}
}

type rewindModel struct {
	t      *testing.T
	n      *testNode
	checks int

	mu     sync.Mutex
	names  []string
	count  map[string]int // of events published, by room
	script []int          // of what happens during calls
	cutAt  int            // the number of calls until the connection is cut; negative for never
	w      *wire

	state map[string]*rewindState // by room
	asked map[string]int          // by room, the events published when a join in flight began; nil if there is none
	last  int                     // of that join
	log   []string
}

// A rewindState is what a client knows of a room.
type rewindState struct {
	in     bool
	unsure bool // it may be in the room: a join was not acked
	next   int
	again  bool // events may come again
}

// A rewindCalls lets the model act around the calls of a node.
type rewindCalls struct {
	adapter.Adapter
	act func()
}

func (c *rewindCalls) Subscribe(ctx context.Context, list ...rooms.Room) (adapter.Cursor, error) {
	c.act()
	defer c.act()
	return c.Adapter.Subscribe(ctx, list...)
}

func (c *rewindCalls) Head(ctx context.Context, seen ...adapter.Cursor) (adapter.Cursor, error) {
	c.act()
	defer c.act()
	return c.Adapter.Head(ctx, seen...)
}

func (c *rewindCalls) History(ctx context.Context, room rooms.Room, page adapter.Page) ([]adapter.Event, bool, error) {
	c.act()
	defer c.act()
	return c.Adapter.History(ctx, room, page)
}

type rewindSaves struct {
	session.Store
	act func()
}

func (s *rewindSaves) Save(ctx context.Context, snapshot session.Session, ttl time.Duration) error {
	s.act()
	defer s.act()
	return s.Store.Save(ctx, snapshot, ttl)
}

func newRewindModel(t *testing.T, partitions int) *rewindModel {
	m := &rewindModel{t: t}
	node, err := adapter.NewMemory(adapter.MemoryOptions{Partitions: partitions}).Node("a")
	must(t, err)
	m.n = start(t, Options{
		Adapter: &rewindCalls{node, m.act}, Sessions: &rewindSaves{session.NewMemory(), m.act}, SessionRecoveries: 100_000,
	})
	rewindingJoin(m.n.Of("/"))
	joining(m.n.Of("/"))
	return m
}

// act is called around the calls of the node.
func (m *rewindModel) act() {
	m.mu.Lock()
	if len(m.script) == 0 {
		m.mu.Unlock()
		return
	}
	step := m.script[0]
	m.script = m.script[1:]
	cut := m.cutAt == 0
	m.cutAt--
	w, names := m.w, m.names
	m.mu.Unlock()
	for i := range step % 3 {
		m.publish(names[(step+i)%len(names)])
	}
	if cut {
		_ = w.ws.NetConn().Close()
	}
}

func (m *rewindModel) publish(room string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count[room]++
	if err := m.n.To(room).Emit(context.Background(), "n", room, m.count[room]); err != nil {
		m.t.Error(err)
	}
}

func (m *rewindModel) counts() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[string]int)
	for room, n := range m.count {
		all[room] = n
	}
	return all
}

func (m *rewindModel) check(rt *rapid.T) {
	m.checks++
	m.mu.Lock()
	m.names, m.count, m.state, m.asked, m.log, m.script = nil, map[string]int{}, map[string]*rewindState{}, nil, nil, nil
	for i := range 3 {
		name := fmt.Sprint("check ", m.checks, " room ", i)
		m.names = append(m.names, name)
		m.state[name] = new(rewindState)
	}
	m.mu.Unlock()
	m.connect(m.n.client(m.t))
	defer func() { m.w.cut() }()
	draw := func(n int, what string) int { return rapid.IntRange(0, n-1).Draw(rt, what) }
	for range rapid.IntRange(1, 12).Draw(rt, "steps") {
		for range draw(4, "events") {
			m.publish(m.names[draw(3, "room")])
		}
		m.mu.Lock()
		m.script, m.cutAt = rapid.SliceOfN(rapid.IntRange(0, 99), 0, 16).Draw(rt, "script"), draw(30, "cut at")
		m.mu.Unlock()
		first := draw(3, "first")
		list, _ := json.Marshal(m.names[first : first+1+draw(3-first, "rooms")])
		switch draw(4, "step") {
		case 0:
			m.leave(rt, m.names[first])
		case 1:
			m.w.cut()
			m.recover(rt)
		default:
			m.join(rt, draw(6, "last"), string(list))
		}
		m.mu.Lock()
		m.script = nil
		m.mu.Unlock()
	}
	m.settle(rt)
}

func (m *rewindModel) connect(w *wire) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.w = w
}

// call sends an event and takes what comes up to its ack. If the connection is lost it recovers and
// returns "".
func (m *rewindModel) call(rt *rapid.T, array string) (ack string) {
	m.note("call %s", array)
	m.w.acks++
	id := fmt.Sprint(m.w.acks)
	m.w.write("42" + id + array)
	for {
		frame, open := m.frame()
		if !open {
			m.recover(rt)
			return ""
		}
		if ack, ok := strings.CutPrefix(frame, "43"+id); ok {
			return ack
		}
		m.event(rt, frame)
	}
}

// frame returns the next message, or false when the connection has ended.
func (m *rewindModel) frame() (string, bool) {
	select {
	case frame := <-m.w.in:
		return frame, true
	default:
	}
	select {
	case frame := <-m.w.in:
		return frame, true
	case <-m.w.closed:
	case <-time.After(patience):
		m.t.Fatalf("nothing came:\n%s", strings.Join(m.log, "\n"))
	}
	select {
	case frame := <-m.w.in:
		return frame, true
	default:
		return "", false
	}
}

func (m *rewindModel) join(rt *rapid.T, last int, list string) {
	var names []string
	_ = json.Unmarshal([]byte(list), &names)
	before := m.counts()
	m.asked, m.last = map[string]int{}, last
	for _, name := range names {
		m.asked[name] = before[name]
	}
	ack := m.call(rt, fmt.Sprintf(`["rewind",%d,%s]`, last, list))
	if m.asked == nil || ack == "" {
		return // cut
	}
	m.note("joined: %s", ack)
	a := m.w.rewound(ack)
	for _, name := range names {
		s, newest := m.state[name], 0
		events := a.History[name].Events
		for i, e := range events {
			var n int
			_ = json.Unmarshal(e.Args[1], &n)
			if i > 0 && n != newest+1 {
				m.fail(rt, "the history of %s has %d after %d", name, n, newest)
			}
			newest = n
		}
		after := m.counts()[name]
		switch {
		case last > 0 && newest < m.asked[name] || newest > after:
			m.fail(rt, "the history of %s ends with %d, want %d to %d", name, newest, m.asked[name], after)
		case last > 0 && len(events) != min(last, newest):
			m.fail(rt, "%d events of %s, which has %d, want %d", len(events), name, newest, last)
		}
		next := newest + 1
		if last == 0 {
			next = 0 // not known
		}
		*s = rewindState{in: true, next: next, again: s.in || s.unsure}
	}
	m.asked = nil
}

func (m *rewindModel) leave(rt *rapid.T, name string) {
	if ack := m.call(rt, fmt.Sprintf(`["leave",%q]`, name)); ack != "" {
		*m.state[name] = rewindState{}
		return
	}
	if s := m.state[name]; s.in || s.unsure { // it may have left
		*s = rewindState{unsure: true}
	}
}

// event takes an event.
func (m *rewindModel) event(rt *rapid.T, frame string) {
	text := m.w.hear(frame)
	var args []json.RawMessage
	var name string
	var n int
	if json.Unmarshal([]byte(text), &args) != nil || len(args) < 3 || json.Unmarshal(args[1], &name) != nil || json.Unmarshal(args[2], &n) != nil {
		m.fail(rt, "got %s", frame)
	}
	m.note("event %s %d", name, n)
	s := m.state[name]
	switch {
	case s == nil || s.unsure && !s.in: // of an earlier check
	case !s.in:
		m.fail(rt, "%s: %d came outside of the room", name, n)
	case s.next == 0 || n == s.next:
		s.next = n + 1
	case n > s.next || !s.again:
		m.fail(rt, "%s: got %d, want %d", name, n, s.next)
	}
}

// recover takes the rest of a lost connection, and connects again.
func (m *rewindModel) recover(rt *rapid.T) {
	asked := m.asked
	m.asked = nil
	<-m.w.closed
	for frame, open := m.frame(); open; frame, open = m.frame() {
		if strings.HasPrefix(frame, "42") { // the client does not use a late ack
			m.event(rt, frame)
		}
	}
	for name := range asked {
		m.state[name].unsure = true
	}
	was := m.w
	m.mu.Lock()
	m.script = nil
	m.mu.Unlock()
	m.connect(m.n.back(m.t, was))
	m.note("recovered %v", m.w.pid == was.pid)
	if m.w.pid != was.pid {
		for _, s := range m.state {
			*s = rewindState{}
		}
	}
}

// settle waits until everything has arrived.
func (m *rewindModel) settle(rt *rapid.T) {
	for _, name := range m.names {
		m.publish(name)
	}
	want := m.counts()
	for {
		rest := false
		for name, s := range m.state {
			rest = rest || s.in && s.next != want[name]+1
		}
		if !rest {
			return
		}
		frame, open := m.frame()
		if !open {
			m.fail(rt, "the connection has ended")
		}
		m.event(rt, frame)
	}
}

func (m *rewindModel) note(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf(format, args...))
}

func (m *rewindModel) fail(rt *rapid.T, format string, args ...any) {
	rt.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(m.log, "\n"))
}

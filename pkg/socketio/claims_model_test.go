package socketio

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"pgregory.net/rapid"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// TestClaimsModel runs one session on up to three nodes, and decides the order of
// everything that concerns its ownership: connections that present its private id, the
// start and the answer of each call of the session store, each message between nodes (which
// may also get lost), cuts, refused recoveries, timeouts, events, joins and refreshes.
// After each step at most one socket per node may deliver, with the highest fence that its
// node has learned of. OnDisconnect has not been called for a client that is served by the
// next claim, unless its node could not learn of that. In the end one socket is left, which
// has and gets every event once, and can be recovered; or OnDisconnect has been called
// exactly once for the last one that was connected.
func TestClaimsModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		nodes := rapid.IntRange(1, 3).Draw(rt, "nodes")
		script := rapid.SliceOfN(rapid.IntRange(0, 9999), 40, 120).Draw(rt, "script")
		var failure string
		synctest.Test(t, func(t *testing.T) {
			m := newClaimsModel(t, nodes)
			failure = m.run(script)
			m.close()
		})
		if failure != "" {
			rt.Fatal(failure)
		}
	})
}

type claimsModel struct {
	t        *testing.T
	memory   *adapter.Memory
	store    *session.Memory
	nodes    []*modelNode
	conns    []*modelConn
	pid, sid string
	last     int            // number of the last event
	lost     bool           // a message between nodes was lost
	offsets  map[int]string // of the events that were received
	log      []string

	mu      sync.Mutex
	free    bool // no call waits for a step any more
	waiting []*modelStep
	ended   []modelEnd
	claimed uint64 // the highest fence that a claim may have
	refuse  bool   // the next replay finds that events are missing
	refused bool   // the session has ended, because its recovery was refused
}

type modelNode struct {
	*Server
	web  *http.Server
	dial func(context.Context, string, string) (net.Conn, error)

	// Guarded by the model's mu.
	learned uint64 // the highest fence that the node knows of
	timeout bool   // a call of the store that writes or prolongs a session has not been answered
}

// A modelEnd is a call of OnDisconnect of a connection.
type modelEnd struct {
	id int
	// unaware: its node had not learned of the next claim by then, and could not: a message
	// was lost, or the store did not answer.
	unaware bool
}

// A modelStep is an action that the script triggers: a call continues, or a message is
// delivered.
type modelStep struct {
	name    string
	deliver func()        // of a message; nil for a call
	goOn    chan struct{} // of a call
}

type modelConn struct {
	id, node int
	base     int // number of the event that the client had when it connected
	ws       *websocket.Conn
	cut      bool // by the client

	mu     sync.Mutex
	frames []string
	closed bool
	socket *Socket
	other  bool // it has got a new session
}

// modelKey is the key of the number of a socket's connection.
type modelKey struct{}

type modelFailure string

func (m *claimsModel) fail(format string, args ...any) {
	panic(modelFailure(fmt.Sprintf(format, args...) + "\n" + strings.Join(m.log, "\n")))
}

func newClaimsModel(t *testing.T, nodes int) *claimsModel {
	m := &claimsModel{t: t, memory: adapter.NewMemory(adapter.MemoryOptions{}), store: session.NewMemory(), offsets: map[int]string{0: ""}}
	for i := range nodes {
		inner, err := m.memory.Node(adapter.NodeID(fmt.Sprint("node", i)))
		must(t, err)
		n := &modelNode{}
		engine := engineio.Options{PingInterval: time.Hour} // pings are not answered
		n.Server, err = NewServer(Options{Adapter: &modelAdapter{inner, m}, Sessions: &modelStore{m.store, m, i}, Engine: engine})
		must(t, err)
		joining(n.Namespace)
		n.Use(func(_ context.Context, r *ConnectRequest) error {
			id, err := strconv.Atoi(r.Handshake().Query().Get("c"))
			if err != nil {
				return err
			}
			r.SetValue(modelKey{}, id)
			c := m.conns[id]
			c.mu.Lock()
			c.socket = r.socket
			c.mu.Unlock()
			return nil
		})
		n.OnConnect(func(s *Socket) {
			id := s.Value(modelKey{}).(int)
			c := m.conns[id]
			s.OnDisconnect(func(Reason) {
				fence, _ := c.fences()
				m.mu.Lock()
				defer m.mu.Unlock()
				n := m.nodes[c.node]
				m.ended = append(m.ended, modelEnd{id, n.learned <= fence && (m.lost || n.timeout)})
			})
		})
		l := newPipeListener()
		n.dial, n.web = l.dial, &http.Server{Handler: n.Server}
		go func() { _ = n.web.Serve(l) }() // until the server is closed
		m.nodes = append(m.nodes, n)
	}
	return m
}

func (m *claimsModel) close() {
	m.mu.Lock()
	m.free = true
	m.mu.Unlock()
	m.drain()
	for _, c := range m.conns {
		_ = c.ws.Close()
	}
	for _, n := range m.nodes {
		must(m.t, n.Server.Close(context.Background()))
		must(m.t, n.web.Close())
		must(m.t, n.adapter.Close())
	}
}

// pause waits for a step, unless ctx ends first, as with a caller that gives up.
func (m *claimsModel) pause(ctx context.Context, name string) error {
	st := &modelStep{name: name, goOn: make(chan struct{})}
	m.mu.Lock()
	if m.free {
		m.mu.Unlock()
		return nil
	}
	m.waiting = append(m.waiting, st)
	m.mu.Unlock()
	select {
	case <-st.goOn:
		return nil
	case <-ctx.Done():
		m.take(st)
		return context.Cause(ctx)
	}
}

// take removes a step from those that are waiting.
func (m *claimsModel) take(st *modelStep) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiting = slices.DeleteFunc(m.waiting, func(other *modelStep) bool { return other == st })
}

// later adds a step that no goroutine waits for.
func (m *claimsModel) later(name string, f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.free {
		m.waiting = append(m.waiting, &modelStep{name: name, deliver: f})
	}
}

func (m *claimsModel) learn(node int, fence uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nodes[node].learned = max(m.nodes[node].learned, fence)
}

// A modelStore makes each call of a node wait before and after its execution.
type modelStore struct {
	session.Store
	m    *claimsModel
	node int
}

func (s *modelStore) name(what string, fence uint64) string {
	return fmt.Sprintf("node %d: %s %d", s.node, what, fence)
}

// Claim reads the session and then replaces the read value, as one in Redis does. A claim
// that its caller abandons may still be executed, late.
func (s *modelStore) Claim(ctx context.Context, pid, by string, ttl time.Duration, check func(session.Session) error) (session.Session, string, error) {
	for {
		var seen session.Session
		_, _, err := s.Store.Claim(ctx, pid, by, ttl, func(found session.Session) error {
			seen = found
			return cmp.Or(check(found), errModelSeen)
		})
		if !errors.Is(err, errModelSeen) {
			return session.Session{}, "", err
		}
		execute := func() (session.Session, string, error) {
			claimed, former, err := s.Store.Claim(context.Background(), pid, by, ttl, func(found session.Session) error {
				if found.Fence != seen.Fence {
					return errModelChanged
				}
				return nil
			})
			if err == nil {
				s.m.mu.Lock()
				s.m.claimed = claimed.Fence
				s.m.mu.Unlock()
			}
			return claimed, former, err
		}
		if err := s.m.pause(ctx, s.name("claim", seen.Fence+1)); err != nil {
			s.m.later(s.name("late claim", seen.Fence+1), func() { _, _, _ = execute() })
			return session.Session{}, "", err
		}
		claimed, former, err := execute()
		if errors.Is(err, errModelChanged) {
			continue
		}
		if err != nil {
			return claimed, former, err
		}
		if err := s.m.pause(ctx, s.name("claimed", claimed.Fence)); err != nil {
			return session.Session{}, "", err // executed, and the answer is lost
		}
		s.m.learn(s.node, claimed.Fence)
		return claimed, former, nil
	}
}

var errModelSeen, errModelChanged = errors.New("model: seen"), errors.New("model: changed")

// pause waits for a step of a call that says whether a session has been claimed.
func (s *modelStore) pause(ctx context.Context, name string) error {
	err := s.m.pause(ctx, name)
	if err != nil {
		s.m.mu.Lock()
		s.m.nodes[s.node].timeout = true
		s.m.mu.Unlock()
	}
	return err
}

func (s *modelStore) Drop(ctx context.Context, ref session.Ref) error {
	if err := s.pause(ctx, s.name("drop", ref.Fence)); err != nil {
		return err
	}
	err := s.Store.Drop(ctx, ref)
	if errors.Is(err, session.ErrFenced) {
		s.m.learn(s.node, ref.Fence+1)
	}
	return err
}

func (s *modelStore) Save(ctx context.Context, v session.Session, ttl time.Duration) error {
	if err := s.pause(ctx, s.name("save", v.Fence)); err != nil {
		return err
	}
	err := s.Store.Save(ctx, v, ttl)
	if err := s.pause(ctx, s.name("saved", v.Fence)); err != nil {
		return err
	}
	if errors.Is(err, session.ErrFenced) {
		s.m.learn(s.node, v.Fence+1)
	}
	return err
}

func (s *modelStore) Refresh(ctx context.Context, live []session.Ref, ttl time.Duration) ([]session.Ref, error) {
	if err := s.pause(ctx, s.name("refresh", uint64(len(live)))); err != nil {
		return nil, err
	}
	gone, err := s.Store.Refresh(ctx, live, ttl)
	if err := s.pause(ctx, s.name("refreshed", uint64(len(gone)))); err != nil {
		return nil, err
	}
	return gone, err
}

// A modelAdapter keeps the messages about claims until a step delivers them.
type modelAdapter struct {
	adapter.Adapter
	m *claimsModel
}

func (a *modelAdapter) Send(ctx context.Context, to adapter.NodeID, msg adapter.Message) error {
	var ref session.Ref
	if msg.Kind != messageEvict || json.Unmarshal(msg.Data, &ref) != nil {
		return a.Adapter.Send(ctx, to, msg)
	}
	m := a.m
	node := slices.IndexFunc(m.nodes, func(n *modelNode) bool { return n.adapter.Node() == to })
	m.later(fmt.Sprintf("message to node %d: %s", node, msg.Data), func() {
		m.learn(node, ref.Fence)
		_ = a.Adapter.Send(context.Background(), to, msg)
	})
	return nil
}

func (a *modelAdapter) Replay(ctx context.Context, after map[rooms.Room]adapter.Cursor, upTo adapter.Cursor, payload int) iter.Seq2[adapter.Event, error] {
	a.m.mu.Lock()
	refuse := a.m.refuse
	a.m.refuse, a.m.refused = false, a.m.refused || refuse
	a.m.mu.Unlock()
	if refuse {
		return func(yield func(adapter.Event, error) bool) { yield(adapter.Event{}, adapter.ErrTrimmed) }
	}
	return a.Adapter.Replay(ctx, after, upTo, payload)
}

// open connects to a node with the last offset that the client has, and presents
// the private id, without waiting for an answer.
func (m *claimsModel) open(node int) {
	base := slices.Max(slices.Collect(maps.Keys(m.offsets)))
	c := &modelConn{id: len(m.conns), node: node, base: base}
	m.conns = append(m.conns, c)
	dialer := websocket.Dialer{NetDialContext: m.nodes[node].dial}
	ws, _, err := dialer.Dial(fmt.Sprintf("ws://node/socket.io/?EIO=4&transport=websocket&c=%d", c.id), nil)
	if err != nil {
		m.fail("dial: %v", err)
	}
	c.ws = ws
	go func() { // until the connection is closed
		for {
			_, data, err := ws.ReadMessage()
			c.mu.Lock()
			if err != nil {
				c.closed = true
				c.mu.Unlock()
				return
			}
			c.frames = append(c.frames, string(data))
			c.mu.Unlock()
		}
	}()
	auth := map[string]any{"recovery": true}
	if m.pid != "" {
		auth["pid"] = m.pid
	}
	if offset := m.offsets[base]; offset != "" {
		auth["offset"] = offset
	}
	text, _ := json.Marshal(auth)
	m.write(c, "40"+string(text))
}

func (m *claimsModel) write(c *modelConn, text string) {
	_ = c.ws.WriteMessage(websocket.TextMessage, []byte(text))
	synctest.Wait()
}

// isOpen reports whether the client still has a connection.
func (c *modelConn) isOpen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closed && !c.cut
}

// answered reports whether CONNECT has been answered.
func (c *modelConn) answered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.other && slices.ContainsFunc(c.frames, func(f string) bool { return strings.HasPrefix(f, "40{") })
}

// numbers returns the numbers of the events that the connection has received.
func (m *claimsModel) numbers(c *modelConn) (all []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.frames {
		var body struct{ SID, PID string }
		if rest, ok := strings.CutPrefix(f, "40"); ok && json.Unmarshal([]byte(rest), &body) == nil {
			if m.sid == "" {
				m.sid, m.pid = body.SID, body.PID
			}
			if body.SID != m.sid || body.PID != m.pid {
				m.mu.Lock()
				refused := m.refused
				m.mu.Unlock()
				if !refused {
					m.fail("connection %d is not recovered: %s", c.id, f)
				}
				c.other = true
			}
		}
		if c.other {
			return nil
		}
		var args []any
		if rest, ok := strings.CutPrefix(f, "42"); ok && json.Unmarshal([]byte(rest), &args) == nil {
			n := int(args[1].(float64))
			all = append(all, n)
			m.offsets[n] = args[2].(string)
		}
	}
	return all
}

// fences returns the fence of the socket of a connection and whether the socket can
// deliver.
func (c *modelConn) fences() (fence uint64, delivers bool) {
	c.mu.Lock()
	s, other := c.socket, c.other
	c.mu.Unlock()
	if s == nil || other {
		return 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fence, s.placed && !s.stage.gone()
}

// check verifies the invariants after every step.
func (m *claimsModel) check() {
	synctest.Wait()
	delivering := map[int]int{} // connection by node
	for _, c := range m.conns {
		got := m.numbers(c)
		for i, n := range got {
			if n != c.base+1+i {
				m.fail("connection %d received %v after %d", c.id, got, c.base)
			}
		}
		fence, delivers := c.fences()
		if !delivers {
			m.mu.Lock()
			claimed := m.claimed
			m.mu.Unlock()
			if c.answered() && !c.cut && fence >= claimed {
				m.fail("connection %d was evicted with fence %d, though there is no later claim", c.id, fence)
			}
			continue
		}
		if other, ok := delivering[c.node]; ok {
			m.fail("connections %d and %d both deliver on node %d", other, c.id, c.node)
		}
		delivering[c.node] = c.id
		m.mu.Lock()
		learned := m.nodes[c.node].learned
		m.mu.Unlock()
		if fence < learned {
			m.fail("connection %d delivers with fence %d, though node %d has learned of %d", c.id, fence, c.node, learned)
		}
	}
	m.mu.Lock()
	ended := slices.Clone(m.ended)
	m.mu.Unlock()
	for i, end := range ended {
		id := end.id
		if m.conns[id].other {
			continue
		}
		if slices.ContainsFunc(ended[:i], func(e modelEnd) bool { return e.id == id }) {
			m.fail("OnDisconnect of connection %d twice", id)
		}
		if m.conns[id].cut || end.unaware {
			continue
		}
		fence, _ := m.conns[id].fences()
		for _, next := range m.conns {
			if nextFence, _ := next.fences(); nextFence == fence+1 && (next.answered() || next.isOpen()) {
				m.fail("OnDisconnect of connection %d, whose client has moved to connection %d", id, next.id)
			}
		}
	}
}

// told checks that OnDisconnect was called for the last socket if none is left.
func (m *claimsModel) told() {
	var last *modelConn
	var highest uint64
	for _, c := range m.conns {
		fence, delivers := c.fences()
		if delivers {
			return
		}
		if c.answered() && fence > highest {
			last, highest = c, fence
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if last != nil && !slices.ContainsFunc(m.ended, func(e modelEnd) bool { return e.id == last.id }) {
		m.fail("no OnDisconnect of connection %d, and nobody is connected", last.id)
	}
}

// steps returns the waiting steps, in an order that does not depend on the scheduler.
func (m *claimsModel) steps() []*modelStep {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.Clone(m.waiting)
	slices.SortStableFunc(all, func(a, b *modelStep) int { return strings.Compare(a.name, b.name) })
	return all
}

func (m *claimsModel) release(st *modelStep) {
	m.take(st)
	if st.deliver != nil {
		st.deliver()
	} else {
		close(st.goOn)
	}
}

// drain executes all waiting steps.
func (m *claimsModel) drain() {
	for synctest.Wait(); ; synctest.Wait() {
		all := m.steps()
		if len(all) == 0 {
			return
		}
		m.release(all[0])
	}
}

func (m *claimsModel) openConns() (open []*modelConn) {
	for _, c := range m.conns {
		if c.isOpen() {
			open = append(open, c)
		}
	}
	return open
}

// run plays a script: each number chooses among the possible steps. It returns the error,
// or nothing.
func (m *claimsModel) run(script []int) (failure string) {
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(modelFailure)
			if !ok {
				panic(p)
			}
			failure = string(f)
		}
	}()
	m.open(0)
	m.check()
	for _, choice := range script {
		m.act(choice)
		m.check()
	}
	m.settle()
	return ""
}

func (m *claimsModel) act(choice int) {
	pick := func(n int) int { return choice / 32 % n }
	note := func(format string, args ...any) { m.log = append(m.log, fmt.Sprintf(format, args...)) }
	open, steps := m.openConns(), m.steps()
	switch kind := choice % 16; {
	case kind < 2 && len(open) < 4:
		node := pick(len(m.nodes))
		note("open connection %d to node %d", len(m.conns), node)
		m.open(node)
	case kind == 2 && len(open) > 0:
		c := open[pick(len(open))]
		note("cut connection %d", c.id)
		c.cut = true
		_ = c.ws.NetConn().Close()
	case kind == 3:
		m.last++
		note("publish %d", m.last)
		if err := m.nodes[pick(len(m.nodes))].Emit(context.Background(), "n", m.last); err != nil {
			m.fail("emit: %v", err)
		}
	case kind == 4 && len(open) > 0:
		if c := open[pick(len(open))]; c.answered() {
			note("connection %d joins", c.id)
			m.write(c, fmt.Sprintf(`42["join","room %d"]`, choice))
		}
	case kind == 5:
		node := pick(len(m.nodes))
		note("node %d refreshes", node)
		go m.nodes[node].refresh()
	case kind == 6 && choice/16%4 == 0:
		for _, st := range steps {
			if st.deliver != nil {
				note("lost: %s", st.name)
				m.lost = true
				m.take(st)
				break
			}
		}
	case kind == 6 && choice/16%4 == 1:
		note("time passes")
		time.Sleep(storeTimeout) // of calls that wait for a step
	case kind == 6 && choice/16%16 == 2:
		note("the next replay is refused")
		m.mu.Lock()
		m.refuse = true
		m.mu.Unlock()
	case len(steps) > 0:
		st := steps[pick(len(steps))]
		note("%s", st.name)
		m.release(st)
	}
}

// settle executes everything and checks that one socket is left, which can be recovered.
func (m *claimsModel) settle() {
	for range 3 {
		m.drain()
		m.check()
		time.Sleep(2 * giveUpPeriod)
	}
	if !m.lost {
		m.only()
		m.told()
	}
	for _, n := range m.nodes {
		go n.refresh() // detects the changes that lost messages announced
		m.drain()
		m.check()
	}
	m.only()
	m.mu.Lock()
	refused := m.refused
	m.refuse = false
	m.mu.Unlock()
	if refused {
		return
	}
	for range 2 { // the client reconnects in any case
		for _, c := range m.openConns() {
			c.cut = true
			_ = c.ws.NetConn().Close()
		}
		m.last++
		if err := m.nodes[0].Emit(context.Background(), "n", m.last); err != nil {
			m.fail("emit: %v", err)
		}
		m.log = append(m.log, fmt.Sprintf("publish %d, and reconnect", m.last))
		m.open(m.last % len(m.nodes))
		m.drain()
		m.check()
		c := m.conns[len(m.conns)-1]
		if m.only() != c {
			m.fail("connection %d is not the one that is left", c.id)
		}
		if got := m.numbers(c); len(got) == 0 || got[len(got)-1] != m.last {
			m.fail("connection %d received %v, want all up to %d", c.id, got, m.last)
		}
	}
}

// only returns the connection that is served, or nil, and checks that there is no
// other and that the nodes agree.
func (m *claimsModel) only() (served *modelConn) {
	sockets := 0
	for _, n := range m.nodes {
		sockets += n.Len()
	}
	var highest uint64
	for _, c := range m.conns {
		fence, delivers := c.fences()
		highest = max(highest, fence)
		if !delivers {
			if c.isOpen() && !c.other {
				m.fail("connection %d is open and not served", c.id)
			}
			if c.isOpen() {
				sockets--
			}
			continue
		}
		if served != nil {
			m.fail("connections %d and %d are both served", served.id, c.id)
		}
		served = c
	}
	want := 0
	if served != nil {
		want = 1
		if fence, _ := served.fences(); fence < highest {
			m.fail("connection %d is served with fence %d, the highest is %d", served.id, fence, highest)
		}
	}
	if sockets != want {
		m.fail("%d sockets are connected, want %d", sockets, want)
	}
	return served
}

// A pipeListener accepts connections within the process.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

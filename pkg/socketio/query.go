package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// An Answer is one ack to a query: from a socket, or from a node's handlers, in which case
// SocketID is empty.
type Answer struct {
	Node     adapter.NodeID
	SocketID string
	Args
	described []SocketInfo
	members   *Members
}

// queries are this node's open queries.
type queries struct {
	mu   sync.Mutex
	open map[string]*query
}

// A query collects the answers of the nodes. A node first lists the sockets that will answer,
// and then sends their answers.
type query struct {
	srv    *Server
	id     string
	of     audience
	ctx    context.Context // ends when the answers are no longer awaited
	cancel context.CancelFunc

	mu      sync.Mutex
	news    chan struct{}                      // has a value if a message has arrived
	nodes   map[adapter.NodeID]map[string]bool // pending sockets of each node that has listed its sockets
	answers []Answer                           // not yet taken
	missing []string                           // sockets that can no longer answer
	left    map[adapter.NodeID]bool            // nodes that have answered, and are no longer in the cluster
}

func newQuery() *query {
	return &query{id: newID(), news: make(chan struct{}, 1), nodes: make(map[adapter.NodeID]map[string]bool)}
}

// A look records the state of the cluster during an open query.
type look struct {
	heard   []adapter.NodeID // nodes that had answered when it began
	members []adapter.Member // of the cluster since
}

// look reads the cluster's membership again; members are nil if that fails.
func (q *query) look(ctx context.Context, from adapter.Adapter) look {
	q.mu.Lock()
	heard := slices.Collect(maps.Keys(q.nodes))
	q.mu.Unlock()
	members, err := adapter.FreshNodes(ctx, from)
	if err != nil {
		return look{}
	}
	return look{heard, members}
}

// note records a look. A node's answer came before the look, so if the look does not show the node,
// it has left.
func (q *query) note(l look) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.left = make(map[adapter.NodeID]bool)
	for _, id := range l.heard {
		q.left[id] = !knows(l.members, id)
	}
}

// A response is a message of one node with its answers. A node may send several; the first one has
// Who.
type response struct {
	Who       []string     `json:"who,omitempty"` // the sockets that will answer; "" for the node itself
	First     bool         `json:"first,omitempty"`
	Acks      []ack        `json:"acks,omitempty"`
	Described []SocketInfo `json:"described,omitempty"`
	Members   *Members     `json:"members,omitempty"`
}

type ack struct {
	Who         string          `json:"who"`
	Args        json.RawMessage `json:"args,omitempty"`
	Attachments [][]byte        `json:"attachments,omitempty"`
	Gone        bool            `json:"gone,omitempty"`    // disconnected first
	Unasked     bool            `json:"unasked,omitempty"` // the event turned out not to be for it
}

func (q *queries) init() { q.open = make(map[string]*query) }

func (q *queries) add(a *query) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open[a.id] = a
}

func (q *queries) remove(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.open, id)
}

// take records a message of another node.
func (q *queries) take(m adapter.Message) {
	var got response
	if q.get(m.ID) != nil && json.Unmarshal(m.Data, &got) == nil {
		q.answered(m.From, m.ID, got)
	}
}

// answered records the answers of a node. Duplicates and unrequested answers are dropped.
func (q *queries) answered(by adapter.NodeID, id string, got response) {
	if open := q.get(id); open != nil {
		open.take(by, got)
	}
}

// get returns an open query, or nil.
func (q *queries) get(id string) *query {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.open[id]
}

func (q *query) take(from adapter.NodeID, got response) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if got.First && q.nodes[from] == nil {
		waiting := make(map[string]bool, len(got.Who))
		for _, who := range got.Who {
			waiting[who] = true
		}
		q.nodes[from] = waiting
		if len(got.Described) > 0 || got.Members != nil {
			q.answers = append(q.answers, Answer{Node: from, described: got.Described, members: got.Members})
		}
	}
	for _, k := range got.Acks {
		if !q.nodes[from][k.Who] {
			continue
		}
		delete(q.nodes[from], k.Who)
		switch {
		case k.Gone:
			q.missing = append(q.missing, k.Who)
		case !k.Unasked:
			args, err := decodeArgs(k.Args, k.Attachments)
			if err != nil {
				q.missing = append(q.missing, k.Who)
				continue
			}
			q.answers = append(q.answers, Answer{Node: from, SocketID: k.Who, Args: args})
		}
	}
	select {
	case q.news <- struct{}{}:
	default:
	}
}

// ask publishes a query to the target's nodes. A query to a single room goes to the nodes
// that are subscribed to that room. Any other goes to all nodes, so that the nodes that must answer
// are known. The query is nil if no node is asked.
func (n *Namespace) ask(ctx context.Context, by *Socket, ev adapter.Event, header queryHeader, timeout time.Duration, local bool) (*query, error) {
	srv, to := n.srv, ev.Target.To
	switch {
	case len(to) == 0:
		return nil, nil
	case local:
		return srv.ask(ctx, ev, header, timeout, func(_ context.Context, ev adapter.Event) (audience, error) {
			n.deliverLocal(ev)
			return audience{receivers: 1}, nil
		})
	case len(to) == 1 && to[0].Kind != rooms.Everyone:
		return srv.ask(ctx, ev, header, timeout, func(ctx context.Context, ev adapter.Event) (audience, error) {
			members, _ := srv.members(ctx) // without it, less is known of missing nodes
			r, err := srv.adapter.Publish(ctx, ev)
			if err == nil {
				n.notePublished(ctx, by, ev.Target, r)
			}
			return audience{members: members, receivers: r.Receivers}, err
		})
	}
	target := ev.Target
	ev.Target.To = []rooms.Room{rooms.InNodes()}
	header.To = to
	return srv.ask(ctx, ev, header, timeout, func(ctx context.Context, ev adapter.Event) (audience, error) {
		of, r, err := srv.askAll(ctx, ev)
		if err == nil {
			n.notePublished(ctx, by, target, r)
		}
		return of, err
	})
}

// askAll publishes a query to all nodes, each of which must answer.
func (s *Server) askAll(ctx context.Context, ev adapter.Event) (audience, adapter.Receipt, error) {
	members, err := s.members(ctx)
	if err != nil {
		return audience{}, adapter.Receipt{}, err
	}
	r, err := s.adapter.Publish(ctx, ev)
	return audience{members: members, all: true, receivers: r.Receivers}, r, err
}

// members returns the cluster's nodes as they are before a query is published. A list that shows
// another node's feed as interrupted is read again: feeds are resumed within milliseconds, above all
// that of a node that has just started, and the list may be a second old.
func (s *Server) members(ctx context.Context) ([]adapter.Member, error) {
	members, err := s.adapter.Nodes(ctx)
	if slices.ContainsFunc(members, func(m adapter.Member) bool { return m.CatchingUp && m.ID != s.adapter.Node() }) {
		ctx, cancel := context.WithTimeout(ctx, membersPeriod)
		defer cancel()
		if fresh, err := adapter.FreshNodes(ctx, s.adapter); err == nil {
			return fresh, nil
		}
	}
	return members, err
}

// ask publishes a query, whose answers are to be collected by one call of each.
func (s *Server) ask(ctx context.Context, ev adapter.Event, header queryHeader, timeout time.Duration, publish func(context.Context, adapter.Event) (audience, error)) (*query, error) {
	cancel := func() {}
	if _, bounded := ctx.Deadline(); timeout > 0 || !bounded {
		if timeout == 0 {
			timeout = s.opts.AckTimeout
		}
		ctx, cancel = context.WithTimeout(ctx, timeout)
	}
	q := newQuery()
	q.srv, q.ctx, q.cancel = s, ctx, cancel
	s.queries.add(q) // before it is published: the first answer may arrive immediately
	deadline, _ := ctx.Deadline()
	header.ID, header.Wait = q.id, max(time.Until(deadline).Milliseconds(), 1)
	ev.Ask = header.format()
	var err error
	if q.of, err = publish(ctx, ev); err != nil {
		s.queries.remove(q.id)
		cancel()
		return nil, fmt.Errorf("socketio: ask: %w", err)
	}
	return q, nil
}

// each yields the answers as they arrive.
func (q *query) each(yield func(Answer, error) bool) {
	defer q.cancel()
	defer q.srv.queries.remove(q.id)
	of, ctx := q.of, q.ctx
	now, fresh := of.members, false
	again := time.NewTicker(membersPeriod)
	defer again.Stop()
	looks, looking := make(chan look, 1), false
	looker, stop := context.WithCancel(ctx)
	defer stop()
	for {
		got, complete := q.progress(of, now, fresh)
		for _, a := range got {
			if !yield(a, nil) {
				return
			}
		}
		if complete {
			if err := q.unanswered(of, now, nil); err != nil {
				yield(Answer{}, err)
			}
			return
		}
		select {
		case <-q.news:
		case <-again.C:
			if !looking {
				looking = true
				q.srv.spawn(func() { looks <- q.look(looker, q.srv.adapter) }) // ends with the query
			}
		case l := <-looks:
			if looking = false; l.members != nil {
				fresh = true
				q.note(l)
				if of.members != nil {
					now = l.members
				}
			}
		case <-ctx.Done():
			yield(Answer{}, q.unanswered(of, now, context.Cause(ctx)))
			return
		case <-q.srv.ctx.Done():
			yield(Answer{}, ErrDisconnected)
			return
		}
	}
}

// membersPeriod is how often a pending query re-reads the cluster's membership.
const membersPeriod = time.Second

// A queryHeader is the content of a query's Ask, as JSON.
type queryHeader struct {
	ID   string       `json:"id"`
	Wait int64        `json:"wait"`         // how long the answer is awaited, in milliseconds: clocks of nodes differ
	To   []rooms.Room `json:"to,omitempty"` // its receivers, if it is published to all nodes

	Members *membersAfter `json:"members,omitempty"` // a page of members is requested, not descriptions
}

func (h queryHeader) format() string {
	b, err := json.Marshal(h)
	if err != nil {
		panic(err) // strings and numbers can be encoded
	}
	return string(b)
}

func parseQueryHeader(s string) (h queryHeader, wait time.Duration) {
	_ = json.Unmarshal([]byte(s), &h) // written by a node
	if h.Wait < 1 || h.Wait > maxWait.Milliseconds() {
		h.Wait = maxWait.Milliseconds()
	}
	return h, time.Duration(h.Wait) * time.Millisecond
}

// maxWait is the maximum time that a node keeps state for an ack.
const maxWait = time.Hour

// Values of the Kind of a message between nodes.
const (
	messageAnswers uint8 = iota // to a query
	messageEvict                // a session that this node served has moved
)

// runMessages processes the node's messages until the adapter or the server closes.
func (s *Server) runMessages(ctx context.Context) {
	for {
		m, err := s.adapter.Receive(ctx)
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, adapter.ErrClosed) {
				s.cutAll()
			}
			return
		}
		switch m.Kind {
		case messageAnswers:
			s.queries.take(m)
		case messageEvict:
			s.takeEvict(m)
		}
	}
}

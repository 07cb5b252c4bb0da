package socketio

import (
	"cmp"
	"context"
	"encoding/json"
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
	ctx    context.Context // ends when the answers are no longer awaited
	cancel context.CancelFunc
	audience

	mu      sync.Mutex
	arrived chan struct{}                      // has a value if a message has arrived
	nodes   map[adapter.NodeID]map[string]bool // pending sockets of each node that has listed its sockets
	answers []Answer                           // not yet taken
	missing []string                           // sockets that can no longer answer
	now     []adapter.Member                   // of the cluster as read since the query was published; nil before
	left    map[adapter.NodeID]bool            // nodes that have answered, and are no longer in the cluster
}

func newQuery() *query {
	return &query{id: newID(), arrived: make(chan struct{}, 1), nodes: make(map[adapter.NodeID]map[string]bool)}
}

// look reads the cluster's membership again. A node's answer arrived before that, so if the
// membership does not list the node, it has left.
func (q *query) look() {
	q.mu.Lock()
	answered := slices.Collect(maps.Keys(q.nodes))
	q.mu.Unlock()
	members, err := adapter.FreshNodes(q.ctx, q.srv.adapter)
	if err != nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.now, q.left = members, make(map[adapter.NodeID]bool)
	for _, id := range answered {
		q.left[id] = !knows(members, id)
	}
	q.changed()
}

// changed makes each look at the query again. q.mu is held.
func (q *query) changed() {
	select {
	case q.arrived <- struct{}{}:
	default:
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

func (q *queries) add(a *query) {
	q.mu.Lock()
	defer q.mu.Unlock()
	put(&q.open, a.id, a)
}

func (q *queries) remove(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.open, id)
}

// take records the answers of another node. Duplicates and unrequested answers are dropped.
func (q *queries) take(m adapter.Message) {
	var got response
	if open := q.get(m.ID); open != nil && json.Unmarshal(m.Data, &got) == nil {
		open.take(m.From, got)
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
	q.changed()
}

// ask publishes a query to the target's nodes. A query to a single room goes to the nodes
// that are subscribed to that room. Any other goes to all nodes, so that the nodes that must answer
// are known. The query is nil if no node is asked.
func (b emitter) ask(ctx context.Context, ev adapter.Event, header queryHeader) (*query, error) {
	target := ev.Target
	if len(target.To) == 0 {
		return nil, nil
	}
	q := b.ns.srv.newQuery(ctx, b.timeout)
	if b.local {
		q.receivers = 1
		ev.Ask = q.format(header)
		b.ns.deliverLocal(ev)
		return q, nil
	}
	all := len(target.To) > 1 || target.To[0].Kind == rooms.Everyone
	if all {
		ev.Target.To, header.To = []rooms.Room{rooms.InNodes()}, target.To
	}
	r, err := q.publish(ev, header, all)
	if err != nil {
		return nil, err
	}
	if ev.Kind == kindEmit {
		b.notePublished(ctx, target, r)
	}
	return q, nil
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

// newQuery opens a query, whose answers are to be collected by one call of each.
func (s *Server) newQuery(ctx context.Context, timeout time.Duration) *query {
	q := newQuery()
	q.srv = s
	if _, bounded := ctx.Deadline(); timeout > 0 || !bounded {
		q.ctx, q.cancel = context.WithTimeout(ctx, cmp.Or(timeout, s.opts.AckTimeout))
	} else {
		q.ctx, q.cancel = context.WithCancel(ctx)
	}
	s.queries.add(q) // before it is published: the first answer may arrive immediately
	return q
}

// close ends the wait for answers.
func (q *query) close() {
	q.srv.queries.remove(q.id)
	q.cancel()
}

// publish publishes the event of a query. If all is set, it goes to all nodes, and each must answer.
func (q *query) publish(ev adapter.Event, header queryHeader, all bool) (r adapter.Receipt, err error) {
	ev.Ask = q.format(header)
	if q.members, err = q.srv.members(q.ctx); err == nil || !all { // otherwise less is known of missing nodes
		r, err = q.srv.adapter.Publish(q.ctx, ev)
	}
	if q.all, q.receivers = all, r.Receivers; err != nil {
		q.close()
		return r, fmt.Errorf("socketio: ask: %w", err)
	}
	return r, nil
}

// each yields the answers as they arrive.
func (q *query) each(yield func(Answer, error) bool) {
	defer q.close()
	again := time.NewTimer(membersPeriod)
	defer again.Stop()
	for {
		got, complete := q.progress()
		for _, a := range got {
			if !yield(a, nil) {
				return
			}
		}
		if complete {
			if err := q.unanswered(nil); err != nil {
				yield(Answer{}, err)
			}
			return
		}
		select {
		case <-q.arrived:
		case <-again.C:
			q.srv.spawn(func() { // ends with the query
				q.look()
				again.Reset(membersPeriod)
			})
		case <-q.ctx.Done():
			yield(Answer{}, q.unanswered(context.Cause(q.ctx)))
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

// format returns the header of the query in full.
func (q *query) format(h queryHeader) string {
	deadline, _ := q.ctx.Deadline()
	h.ID, h.Wait = q.id, max(time.Until(deadline).Milliseconds(), 1)
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

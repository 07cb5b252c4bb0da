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

// An Answer is one ack to a question: from a socket, or from a node's handlers, in which case
// SocketID is empty.
type Answer struct {
	Node     adapter.NodeID
	SocketID string
	Args
	described []SocketInfo
	members   *Members
}

// questions are this node's open questions.
type questions struct {
	mu   sync.Mutex
	open map[string]*question
}

// A question collects the answers of the nodes. A node first lists the sockets that will answer,
// and then sends their answers.
type question struct {
	mu      sync.Mutex
	news    chan struct{}                      // has a value if something arrived
	nodes   map[adapter.NodeID]map[string]bool // pending sockets of each node that has listed its sockets
	answers []Answer                           // not yet taken
	missing []string                           // sockets that can't answer any more
	left    map[adapter.NodeID]bool            // nodes that have answered, and are no longer in the cluster
}

// A look is what became known of the cluster while a question was open.
type look struct {
	heard   []adapter.NodeID // nodes that had answered when it began
	members []adapter.Member // of the cluster since
}

// look reads the cluster's membership again; members are nil if that fails.
func (a *question) look(ctx context.Context, from adapter.Adapter) look {
	a.mu.Lock()
	heard := slices.Collect(maps.Keys(a.nodes))
	a.mu.Unlock()
	members, err := adapter.FreshNodes(ctx, from)
	if err != nil {
		return look{}
	}
	return look{heard, members}
}

// note records a look. A node's answer came before the look, so if the look does not show the node,
// it has left.
func (a *question) note(l look) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left = make(map[adapter.NodeID]bool)
	for _, id := range l.heard {
		a.left[id] = !knows(l.members, id)
	}
}

// answers is a message of one node with its answers. A node may send several; the first one has
// Who.
type answers struct {
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

func (q *questions) init() { q.open = make(map[string]*question) }

func (q *questions) add() (string, *question) {
	id := newID()
	asked := &question{news: make(chan struct{}, 1), nodes: make(map[adapter.NodeID]map[string]bool)}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open[id] = asked
	return id, asked
}

func (q *questions) remove(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.open, id)
}

// take records what another node sent.
func (q *questions) take(m adapter.Message) {
	var got answers
	if q.get(m.ID) != nil && json.Unmarshal(m.Data, &got) == nil {
		q.answered(m.From, m.ID, got)
	}
}

// answered records the answers of a node. Duplicates and unrequested answers are dropped.
func (q *questions) answered(by adapter.NodeID, id string, got answers) {
	if asked := q.get(id); asked != nil {
		asked.take(by, got)
	}
}

// get returns an open question, or nil.
func (q *questions) get(id string) *question {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.open[id]
}

func (a *question) take(from adapter.NodeID, got answers) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if got.First && a.nodes[from] == nil {
		waiting := make(map[string]bool, len(got.Who))
		for _, who := range got.Who {
			waiting[who] = true
		}
		a.nodes[from] = waiting
		if len(got.Described) > 0 || got.Members != nil {
			a.answers = append(a.answers, Answer{Node: from, described: got.Described, members: got.Members})
		}
	}
	for _, k := range got.Acks {
		if !a.nodes[from][k.Who] {
			continue
		}
		delete(a.nodes[from], k.Who)
		switch {
		case k.Gone:
			a.missing = append(a.missing, k.Who)
		case !k.Unasked:
			args, err := decodeArgs(k.Args, k.Attachments)
			if err != nil {
				a.missing = append(a.missing, k.Who)
				continue
			}
			a.answers = append(a.answers, Answer{Node: from, SocketID: k.Who, Args: args})
		}
	}
	select {
	case a.news <- struct{}{}:
	default:
	}
}

// ask publishes a question to the target's nodes. A question to a single room goes to the nodes
// that are subscribed to that room. Any other goes to all nodes, so that the nodes that must answer
// are known. The inquiry is nil if no node is asked.
func (n *Namespace) ask(ctx context.Context, by *Socket, ev adapter.Event, question asking, timeout time.Duration, local bool) (*inquiry, error) {
	srv, to := n.srv, ev.Target.To
	switch {
	case len(to) == 0:
		return nil, nil
	case local:
		return srv.ask(ctx, ev, question, timeout, func(_ context.Context, ev adapter.Event) (audience, error) {
			n.deliverLocal(ev)
			return audience{receivers: 1}, nil
		})
	case len(to) == 1 && to[0].Kind != rooms.Everyone:
		return srv.ask(ctx, ev, question, timeout, func(ctx context.Context, ev adapter.Event) (audience, error) {
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
	question.To = to
	return srv.ask(ctx, ev, question, timeout, func(ctx context.Context, ev adapter.Event) (audience, error) {
		of, r, err := srv.askAll(ctx, ev)
		if err == nil {
			n.notePublished(ctx, by, target, r)
		}
		return of, err
	})
}

// askAll publishes a question to all nodes, each of which must answer.
func (s *Server) askAll(ctx context.Context, ev adapter.Event) (audience, adapter.Receipt, error) {
	members, err := s.members(ctx)
	if err != nil {
		return audience{}, adapter.Receipt{}, err
	}
	r, err := s.adapter.Publish(ctx, ev)
	return audience{members: members, all: true, receivers: r.Receivers}, r, err
}

// members returns the cluster's nodes as they are before a question is published. A list that shows
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

// An inquiry is a question that was published and whose answers are to be collected by one call of
// each.
type inquiry struct {
	srv    *Server
	id     string
	asked  *question
	of     audience
	ctx    context.Context // ends when the answers are no longer awaited
	cancel context.CancelFunc
}

// ask publishes a question.
func (s *Server) ask(ctx context.Context, ev adapter.Event, question asking, timeout time.Duration, publish func(context.Context, adapter.Event) (audience, error)) (*inquiry, error) {
	cancel := func() {}
	if _, bounded := ctx.Deadline(); timeout > 0 || !bounded {
		if timeout == 0 {
			timeout = s.opts.AckTimeout
		}
		ctx, cancel = context.WithTimeout(ctx, timeout)
	}
	id, asked := s.asked.add() // before it is published: the first answer may arrive immediately
	deadline, _ := ctx.Deadline()
	question.ID, question.Wait = id, max(time.Until(deadline).Milliseconds(), 1)
	ev.Ask = question.format()
	of, err := publish(ctx, ev)
	if err != nil {
		s.asked.remove(id)
		cancel()
		return nil, fmt.Errorf("socketio: ask: %w", err)
	}
	return &inquiry{s, id, asked, of, ctx, cancel}, nil
}

// each yields the answers as they arrive.
func (q *inquiry) each(yield func(Answer, error) bool) {
	defer q.cancel()
	defer q.srv.asked.remove(q.id)
	of, asked, ctx := q.of, q.asked, q.ctx
	now, fresh := of.members, false
	again := time.NewTicker(membersPeriod)
	defer again.Stop()
	looks, looking := make(chan look, 1), false
	looker, stop := context.WithCancel(ctx)
	defer stop()
	for {
		got, complete := asked.progress(of, now, fresh)
		for _, a := range got {
			if !yield(a, nil) {
				return
			}
		}
		if complete {
			if err := asked.unanswered(of, now, nil); err != nil {
				yield(Answer{}, err)
			}
			return
		}
		select {
		case <-asked.news:
		case <-again.C:
			if !looking {
				looking = true
				q.srv.spawn(func() { looks <- asked.look(looker, q.srv.adapter) }) // ends with the question
			}
		case l := <-looks:
			if looking = false; l.members != nil {
				fresh = true
				asked.note(l)
				if of.members != nil {
					now = l.members
				}
			}
		case <-ctx.Done():
			yield(Answer{}, asked.unanswered(of, now, context.Cause(ctx)))
			return
		case <-q.srv.ctx.Done():
			yield(Answer{}, ErrDisconnected)
			return
		}
	}
}

// membersPeriod is how often a pending question re-reads the cluster's membership.
const membersPeriod = time.Second

// An asking is the content of a question's Ask, as JSON.
type asking struct {
	ID   string       `json:"id"`
	Wait int64        `json:"wait"`         // how long the answer is awaited, in milliseconds: clocks of nodes differ
	To   []rooms.Room `json:"to,omitempty"` // its receivers, if it is published to all nodes

	Members *membersAfter `json:"members,omitempty"` // a page of members is requested, not descriptions
}

func (a asking) format() string {
	b, err := json.Marshal(a)
	if err != nil {
		panic(err) // strings and numbers can be encoded
	}
	return string(b)
}

func parseAsking(s string) (a asking, wait time.Duration) {
	_ = json.Unmarshal([]byte(s), &a) // written by a node
	if a.Wait < 1 || a.Wait > maxWait.Milliseconds() {
		a.Wait = maxWait.Milliseconds()
	}
	return a, time.Duration(a.Wait) * time.Millisecond
}

// maxWait is the maximum time that a node keeps state for an ack.
const maxWait = time.Hour

// Values of the Kind of a message between nodes.
const (
	messageAnswers uint8 = iota // to a question
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
			s.asked.take(m)
		case messageEvict:
			s.takeEvict(m)
		}
	}
}

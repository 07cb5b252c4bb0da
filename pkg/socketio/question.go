package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// An Answer is one ack to a question: of a socket, or of a node's handlers, and
// then SocketID is empty.
type Answer struct {
	Node     adapter.NodeID
	SocketID string
	Args
	described []SocketInfo
}

// questions are those that this node asked and that still wait for answers.
type questions struct {
	mu   sync.Mutex
	open map[string]*question
}

// A question gathers the answers of the nodes. A node first says who on it will
// answer, and then what they answer.
type question struct {
	mu      sync.Mutex
	news    chan struct{}           // has a value if something came
	nodes   map[adapter.NodeID]bool // those that said who will answer
	waiting map[string]bool         // ids of those who have not answered yet, with their node's
	answers []Answer                // not yet taken
	missing []string                // sockets that can't answer any more
}

// answers is what one node sends, in one or several messages, the first of which
// has Who.
type answers struct {
	Who       []string     `json:"who,omitempty"` // the sockets that will answer; "" for the node itself
	First     bool         `json:"first,omitempty"`
	Acks      []ack        `json:"acks,omitempty"`
	Described []SocketInfo `json:"described,omitempty"`
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
	asked := &question{
		news: make(chan struct{}, 1), nodes: make(map[adapter.NodeID]bool), waiting: make(map[string]bool),
	}
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

// take records what a node sent. What repeats, and what nobody asked, is
// dropped.
func (q *questions) take(m adapter.Message) {
	q.mu.Lock()
	asked := q.open[m.ID]
	q.mu.Unlock()
	var got answers
	if asked == nil || json.Unmarshal(m.Data, &got) != nil {
		return
	}
	asked.take(m.From, got)
}

func (a *question) take(from adapter.NodeID, got answers) {
	key := func(who string) string { return string(from) + "/" + who }
	a.mu.Lock()
	defer a.mu.Unlock()
	if got.First && !a.nodes[from] {
		a.nodes[from] = true
		for _, who := range got.Who {
			a.waiting[key(who)] = true
		}
		if len(got.Described) > 0 {
			a.answers = append(a.answers, Answer{Node: from, described: got.Described})
		}
	}
	for _, k := range got.Acks {
		if !a.waiting[key(k.Who)] {
			continue
		}
		delete(a.waiting, key(k.Who))
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

// An audience says whose answers make a question complete: as many nodes as the
// event was handed to, or those named.
type audience struct {
	count int
	names []adapter.NodeID
}

// progress takes the answers that have come, and says whether there can be more.
func (a *question) progress(of audience) (got []Answer, complete bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	got, a.answers = a.answers, nil
	for _, n := range of.names {
		if !a.nodes[n] {
			return got, false
		}
	}
	return got, len(a.nodes) >= of.count && len(a.waiting) == 0
}

// unanswered returns the error that ends a question, or nil if all answered.
func (a *question) unanswered(of audience, live []adapter.NodeID, cause error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := &UnansweredError{Sockets: slices.Clone(a.missing), Err: cause}
	for who := range a.waiting {
		if _, id, _ := strings.Cut(who, "/"); id != "" {
			e.Sockets = append(e.Sockets, id)
		} else {
			e.Nodes = append(e.Nodes, adapter.NodeID(strings.TrimSuffix(who, "/")))
		}
	}
	expected := of.names
	if len(a.nodes) < of.count {
		expected = live
	}
	for _, n := range expected {
		if !a.nodes[n] {
			e.Nodes = append(e.Nodes, n)
		}
	}
	slices.Sort(e.Sockets)
	slices.Sort(e.Nodes)
	if cause == nil && len(e.Sockets) == 0 && len(e.Nodes) == 0 {
		return nil
	}
	return e
}

// ask publishes a question to the target's nodes and yields the answers as they
// come.
func (n *Namespace) ask(ctx context.Context, ev adapter.Event, timeout time.Duration, local bool) iter.Seq2[Answer, error] {
	return n.srv.ask(ctx, ev, timeout, func(ctx context.Context, ev adapter.Event) (audience, error) {
		if local {
			n.deliverLocal(ev)
			return audience{count: 1}, nil
		}
		r, err := n.srv.adapter.Publish(ctx, ev)
		return audience{count: r.Receivers}, err
	})
}

func (s *Server) ask(ctx context.Context, ev adapter.Event, timeout time.Duration, publish func(context.Context, adapter.Event) (audience, error)) iter.Seq2[Answer, error] {
	return func(yield func(Answer, error) bool) {
		if _, bounded := ctx.Deadline(); timeout > 0 || !bounded {
			if timeout == 0 {
				timeout = s.opts.AckTimeout
			}
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, timeout)
			defer cancel()
		}
		id, asked := s.asked.add() // before it is published: the first answer may be quick
		defer s.asked.remove(id)
		deadline, _ := ctx.Deadline()
		ev.Ask = formatAsk(id, time.Until(deadline))
		of, err := publish(ctx, ev)
		if err != nil {
			yield(Answer{}, fmt.Errorf("socketio: ask: %w", err))
			return
		}
		for {
			got, complete := asked.progress(of)
			for _, a := range got {
				if !yield(a, nil) {
					return
				}
			}
			if complete {
				if err := asked.unanswered(of, nil, nil); err != nil {
					yield(Answer{}, err)
				}
				return
			}
			select {
			case <-asked.news:
			case <-ctx.Done():
				yield(Answer{}, asked.unanswered(of, s.liveNodes(), context.Cause(ctx)))
				return
			case <-s.ctx.Done():
				yield(Answer{}, ErrDisconnected)
				return
			}
		}
	}
}

func (s *Server) liveNodes() []adapter.NodeID {
	ctx, cancel := s.store()
	defer cancel()
	members, _ := s.adapter.Nodes(ctx) // without it the error names fewer
	nodes := make([]adapter.NodeID, len(members))
	for i, m := range members {
		nodes[i] = m.ID
	}
	return nodes
}

// A question's Ask holds its id and how long it waits, in milliseconds: clocks
// of nodes differ.
func formatAsk(id string, wait time.Duration) string {
	return id + "." + strconv.FormatInt(max(wait.Milliseconds(), 1), 10)
}

func parseAsk(s string) (id string, wait time.Duration) {
	id, ms, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(ms, 10, 64)
	if err != nil || n < 1 || n > maxWait.Milliseconds() {
		n = maxWait.Milliseconds()
	}
	return id, time.Duration(n) * time.Millisecond
}

// maxWait is the longest that a node keeps what waits for an ack.
const maxWait = time.Hour

// What a message between nodes is: its Kind.
const (
	messageAnswers uint8 = iota // to a question
	messageEvict                // a session that this node served has moved
)

// runMessages takes the node's messages until the adapter closes or the server
// does.
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

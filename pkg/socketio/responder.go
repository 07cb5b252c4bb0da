package socketio

import (
	"encoding/json"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/packet"
)

// A responder collects this node's answers to one query and sends them. While a message is in
// flight, the next one collects, so many acks make few messages.
type responder struct {
	srv *Server
	to  adapter.NodeID
	id  string

	mu      sync.Mutex
	pending response
	ready   bool // the set of sockets that will answer is known
	sending bool
	waiting map[*Socket]string // sockets that have not acked, with the id that the ack will name
	timer   *time.Timer
}

func (s *Server) newResponder(ev *adapter.Event) *responder {
	header, wait := parseQueryHeader(ev.Ask)
	a := &responder{srv: s, to: ev.From, id: header.ID, waiting: make(map[*Socket]string)}
	a.timer = time.AfterFunc(wait, a.expire)
	return a
}

// begin sends the list of sockets that will answer.
func (a *responder) begin(first response) {
	a.mu.Lock()
	defer a.mu.Unlock()
	first.First = true
	first.Acks = append(first.Acks, a.pending.Acks...)
	a.pending, a.ready = first, true
	if len(a.waiting) == 0 && len(first.Who) == 0 {
		a.timer.Stop()
	}
	a.flush()
}

// settle sends the ack of a socket, or the reason why it sends none. The socket is nil for the node.
func (a *responder) settle(s *Socket, k ack) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, s)
	a.pending.Acks = append(a.pending.Acks, k)
	if !a.ready {
		return
	}
	if len(a.waiting) == 0 {
		a.timer.Stop()
	}
	a.flush()
}

// flush sends pending response unless a message is in flight. a.mu is held.
func (a *responder) flush() {
	if a.sending {
		return
	}
	a.sending = true
	a.srv.spawn(func() {
		for {
			a.mu.Lock()
			next := a.pending
			a.pending = response{}
			if !next.First && len(next.Acks) == 0 {
				a.sending = false
				a.mu.Unlock()
				return
			}
			a.mu.Unlock()
			a.send(next)
		}
	})
}

func (a *responder) send(next response) {
	if a.to == a.srv.adapter.Node() { // this node's own query does not go through Redis
		for i := range next.Described {
			next.Described[i].Data = slices.Clone(next.Described[i].Data) // the requester may change it
		}
		if open := a.srv.queries.get(a.id); open != nil {
			open.take(a.to, next)
		}
		return
	}
	data, err := json.Marshal(next)
	if err == nil {
		ctx, cancel := a.srv.store()
		defer cancel()
		err = a.srv.adapter.Send(ctx, a.to, adapter.Message{Kind: messageAnswers, ID: a.id, Data: data})
	}
	if err != nil {
		a.srv.log.Warn("response lost; the requester will report this node as silent", zap.String("node", string(a.to)), zap.Error(err))
	}
}

// expect notes that a socket is asked under an ack id.
func (a *responder) expect(s *Socket, ackID string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting[s] = ackID
}

// expire drops acks that are no longer awaited.
func (a *responder) expire() {
	a.mu.Lock()
	waiting := a.waiting
	a.waiting = make(map[*Socket]string)
	a.mu.Unlock()
	for s, ackID := range waiting {
		s.mu.Lock()
		delete(s.acks, ackID)
		s.mu.Unlock()
	}
}

// deliverQuery offers an event that requests acks, and sends the requester the sockets that will
// answer.
func (n *Namespace) deliverQuery(d *delivery) {
	if d.ev.Kind == kindFetch {
		n.srv.answerFetch(n, d.ev)
		return
	}
	a := n.srv.newResponder(d.ev)
	d.ackID = formatAckID(n.acks.Add(1))
	d.responder = a
	var who []string
	for s := range n.index.Candidates(d.ev.Target) {
		if id, asked := s.ask(d); asked {
			who = append(who, id)
			s.offer(d)
		}
	}
	a.begin(response{Who: who})
}

// ask prepares the socket for the ack of a delivery, if it seems to be for it.
func (s *Socket) ask(d *delivery) (id string, asked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stage.gone() || !s.placed || s.gate.closed() && d.volatile() {
		return "", false
	}
	if !s.gate.closed() && !d.meant(&s.rooms, s.id) || !d.meantNow(&s.rooms, s.id) {
		return "", false
	}
	put(&s.acks, d.ackID, d.responder)
	d.responder.expect(s, d.ackID)
	if m := s.client.parked.Load(); m != nil {
		m.retry() // the ack follows events that are not being read
	}
	return s.id, true
}

// receiveAck takes the client's ack of a query. An ack that is not awaited is ignored.
func (s *Socket) receiveAck(p *packet.Packet) {
	s.mu.Lock()
	a, id := s.acks[p.ID], s.id
	delete(s.acks, p.ID)
	s.mu.Unlock()
	if a != nil {
		a.settle(s, ack{Who: id, Args: p.Data, Attachments: p.Attachments})
	}
}

// answerFetch describes the target's members on this node, or sends a page of them.
func (s *Server) answerFetch(n *Namespace, ev *adapter.Event) {
	header, _ := parseQueryHeader(ev.Ask)
	var answer response
	if header.Members != nil {
		answer.Members = new(Members)
	}
	d := n.newDelivery(ev)
	d.local = true // as they are now
	for sock := range n.index.Candidates(ev.Target) {
		sock.mu.Lock()
		if sock.stage.served() && d.meant(&sock.rooms, sock.id) {
			if m := answer.Members; m == nil {
				answer.Described = append(answer.Described, sock.describe())
			} else if m.Count++; sock.id > header.Members.After {
				m.Page = append(m.Page, Member{sock.id, sock.user})
			}
		}
		sock.mu.Unlock()
	}
	if answer.Members != nil {
		answer.Members.cut(header.Members.After)
	}
	s.newResponder(ev).begin(answer)
}

// answerNothing notifies the requester that no socket of this node will answer.
func (s *Server) answerNothing(ev *adapter.Event) {
	if ev.Ask != "" {
		s.newResponder(ev).begin(response{})
	}
}

// answerEnded notifies requesters that a socket that has ended, or is in no room any more, will not
// answer.
func (s *Socket) answerEnded() {
	s.mu.Lock()
	id, acks := s.id, s.acks
	s.acks = nil
	s.mu.Unlock()
	for _, a := range acks {
		a.settle(s, ack{Who: id, Gone: true})
	}
}

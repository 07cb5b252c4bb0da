package socketio

import (
	"context"
	"encoding/json"
	"fmt"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// OnServerSide registers a handler of an event that another node's ServerSideEmit sends to this
// namespace. Handlers of one namespace run one after another, on a separate goroutine, and may
// block; the context ends when the server closes. e.Ack answers the requesting node. A panic does
// not prevent the other handlers from running; the requesting node sees this one as silent, unless
// a handler acks.
func (n *Namespace) OnServerSide(event string, h Handler) {
	registerHandler("OnServerSide", &n.mu, &n.serverSide, event, h)
}

// ServerSideEmit sends an event to the handlers of all other nodes, not to this one's, and not to
// clients. It blocks and fails as [Broadcast.Emit] does, and does not wait for the handlers. The
// event is not stored: a node that misses it does not get it later.
func (n *Namespace) ServerSideEmit(ctx context.Context, event string, args ...any) error {
	ev, err := n.serverSideEvent(event, args)
	if err != nil {
		return err
	}
	_, err = n.Everyone().publish(ctx, ev)
	return err
}

// ServerSideEmitWithAck sends an event as ServerSideEmit does, and collects the answers of the
// other nodes, as EmitWithAck does. Args of an answer are the values that the node's handler
// acked with.
func (n *Namespace) ServerSideEmitWithAck(ctx context.Context, event string, args ...any) (*Answers, error) {
	ev, err := n.serverSideEvent(event, args)
	if err != nil {
		return nil, err
	}
	q := n.srv.newQuery(ctx, 0)
	q.take(n.srv.adapter.Node(), response{First: true}) // it ignores the event
	_, err = q.publish(ev, queryHeader{}, true)
	return n.srv.gather(q, err)
}

// serverSideEvent puts the namespace in front of the event's own array.
func (n *Namespace) serverSideEvent(event string, args []any) (adapter.Event, error) {
	if packet.Reserved(event) {
		return adapter.Event{}, fmt.Errorf("%w: %q", ErrReserved, event)
	}
	data, attachments, err := encodeArray(append([]any{n.name, event}, args...))
	return adapter.Event{
		Kind: kindServerSide, Target: rooms.Target{To: []rooms.Room{rooms.InNodes()}},
		Data: data, Attachments: attachments,
	}, err
}

// dispatchServerSide hands an event of another node to the namespace's handlers.
func (s *Server) dispatchServerSide(ev *adapter.Event) {
	if ev.From == s.adapter.Node() {
		return
	}
	args, err := decodeArgs(ev.Data, ev.Attachments)
	var name, event string
	if err != nil || args.Len() < 2 || json.Unmarshal(args.raw[0], &name) != nil || json.Unmarshal(args.raw[1], &event) != nil {
		s.log.Warn("malformed event from a peer", zap.String("node", string(ev.From)))
		return
	}
	args.raw = args.raw[2:]
	n := s.lookup(name)
	var hs []Handler
	if n != nil {
		n.mu.RLock()
		hs = n.serverSide[event]
		n.mu.RUnlock()
	}
	if len(hs) == 0 {
		s.answerNothing(ev)
		return
	}
	e := &Event{Name: event, Args: args}
	if ev.Ask != "" {
		a := s.newResponder(ev)
		a.begin(response{Who: []string{""}})
		e.reply = func(data []byte, attachments [][]byte) {
			a.settle(nil, ack{Args: data, Attachments: attachments})
		}
	}
	n.mail.put(&s.tasks, func() {
		for _, h := range hs {
			s.guard("OnServerSide", func() {
				if err := h(s.ctx, e); err != nil {
					s.log.Warn("server-side event handler failed", zap.String("namespace", name), zap.String("event", event), zap.Error(err))
				}
			})
		}
	})
}

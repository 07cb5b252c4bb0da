package app

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/hooks"
	"github.com/rejoin-io/rejoin/internal/limit"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// handles reports whether the backend handles an event. known means that the application does, too.
func (h *Hooks) handles(name string, known bool) bool {
	for _, pattern := range h.Events {
		prefix, star := strings.CutSuffix(pattern, "*")
		if pattern == name || star && !known && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// A matter is an event that the backend handles. Inside of the event once, whose arguments are an id, the
// name of an event and that one's arguments, it is the inner one.
type matter struct {
	*socketio.Event
	name string
	from int    // its first argument
	id   string // "" if the client has not named it
}

// about returns what the backend is asked about an event, if it handles it.
func (h *Hooks) about(e *socketio.Event) (m matter, ok bool) {
	if len(h.Events) == 0 {
		return m, false
	}
	m = matter{Event: e, name: e.Name}
	if e.Name == "once" {
		if e.Arg(0, &m.id) != nil || e.Arg(1, &m.name) != nil {
			return m, false
		}
		m.from = 2
	}
	_, known := requests[m.name]
	return m, h.handles(m.name, known || m.name == "echo" || m.name == "once")
}

// questionID returns the id of the question. It is the same for each attempt of a client that has named
// its event.
func (m *matter) questionID() (string, error) {
	if m.from == 0 {
		return "", nil
	}
	if err := checkOnceID(m.id); err != nil {
		return "", err
	}
	s := m.Socket()
	return hooks.NamedID(s.Namespace().Name(), s.User(), m.id), nil
}

// ask has the backend handle an event. It returns when the answer has been carried out, so the events of
// a socket are handled in their order, one at a time. The context of the event may end before: an event
// that the backend has processed is not left half done because its client has disconnected.
func (h *Hooks) ask(ctx context.Context, m matter, limits *limit.Client) error {
	e := m.Event
	if ctx.Err() != nil {
		return nil // the client has left, some time ago
	}
	id, err := m.questionID()
	if err == nil && id != "" {
		if exceeded := limits.Once(); exceeded != nil {
			err = fail(rateLimited, "%v; this one was dropped", exceeded)
		}
	}
	if err == nil {
		err = h.Backend.Late(e.Received())
	}
	if err != nil {
		return answer(e, failure(ctx, err))
	}
	ctx = context.WithoutCancel(ctx)
	question := m.question(id)
	question.Owner = limits.Owner()
	reply, err := h.Backend.Event(ctx, question)
	if err != nil {
		return answer(e, failure(ctx, err))
	}
	if reply.Error != nil {
		return answer(e, failureReply{Code: code(reply.Error.Code), Message: reply.Error.Message})
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	o, err := h.orders(e, id, reply)
	defer o.release()
	if err != nil {
		err = &hooks.Error{Outcome: hooks.Failed, Cause: err}
	} else {
		err = o.execute(ctx)
	}
	if err != nil {
		h.log().Warn("answer of the backend not carried out", zap.String("socket", e.Socket().ID()), zap.String("error", fmt.Sprintf("%.300s", err)))
		return answer(e, unfinished(failure(ctx, err)))
	}
	err = answer(e, o.ack...)
	if reply.Disconnect {
		err = errors.Join(err, o.disconnect(ctx))
	}
	return err
}

// unfinished returns the ack of an event that the backend has processed, and whose answer was not
// carried out.
func unfinished(f failureReply) failureReply {
	if f.Code != code(hooks.Failed) {
		f.Message = "the backend has processed the event, but its answer was not carried out completely"
	}
	f.MayHave = true
	return f
}

// question returns the question with an id; "" for a new one.
func (m *matter) question(id string) hooks.Event {
	s, all := m.Socket(), m.From(m.from).Array()
	q := hooks.Event{
		ID:        id,
		Namespace: s.Namespace().Name(),
		Socket: hooks.Socket{
			ID: s.ID(), User: s.User(), RoomCount: s.RoomCount(), Address: address(s.Handshake().RemoteAddr),
		},
		Event:       m.name,
		Args:        all.JSON,
		Attachments: append([][]byte{}, all.Attachments...),
		Ack:         m.HasAck(),
	}
	if q.Socket.RoomCount <= listedRooms {
		q.Socket.Rooms = append([]string{}, s.Rooms()...)
	}
	_ = s.Data(&q.Socket.Data) // is JSON
	return q
}

// orders are what the backend wants to be done for an event, checked.
type orders struct {
	socket *socketio.Socket
	id     string // of the question, if the client has named its event; "" otherwise
	reply  hooks.Reply
	emits  []Emit
	ack    []any
}

// orders checks everything that can be checked before anything is executed. What it returns must be
// released, also with an error.
func (h *Hooks) orders(e *socketio.Event, id string, reply hooks.Reply) (*orders, error) {
	s := e.Socket()
	o := &orders{socket: s, id: id, reply: reply, ack: []any{struct {
		OK bool `json:"ok"`
	}{true}}}
	if reply.Ack != nil {
		o.ack = make([]any, len(reply.Ack))
		for i, arg := range reply.Ack {
			o.ack[i] = packet.Raw{JSON: arg}
		}
		if _, _, err := packet.AppendArgs(nil, o.ack...); err != nil {
			return o, fmt.Errorf("ack: %w", err)
		}
	}
	ns := s.Namespace()
	for i, emit := range reply.Emits {
		var to *socketio.Broadcast
		if emit.Self {
			self := o.self()
			to = &self
		}
		parsed, err := h.ParseEmit(emit.Body, ns.Name(), to)
		if err != nil {
			return o, fmt.Errorf("emit %d: %w", i, err)
		}
		if emit.ExceptSelf {
			parsed.Broadcast = parsed.Broadcast.ExceptSocket(s.ID())
		}
		o.emits = append(o.emits, parsed)
	}
	return o, nil
}

// release releases what the orders hold.
func (o *orders) release() {
	for _, e := range o.emits {
		e.Release()
	}
}

// execute carries out all but the ack and the disconnect. Joins and leaves are commands to the socket,
// so they reach its client also if it has moved to another node or is between two connections, and a
// weaker token does not undo them.
func (o *orders) execute(ctx context.Context) error {
	self := o.self()
	if len(o.reply.Leave) > 0 {
		if err := o.insist(ctx, self, o.toSelf("leave"), func(b socketio.Broadcast) error { return b.SocketsLeave(ctx, o.reply.Leave...) }); err != nil {
			return fmt.Errorf("leave: %w", err)
		}
	}
	if len(o.reply.Join) > 0 {
		if err := o.insist(ctx, self, o.toSelf("join"), func(b socketio.Broadcast) error { return b.SocketsJoin(ctx, o.reply.Join...) }); err != nil {
			return fmt.Errorf("join: %w", err)
		}
	}
	if o.reply.Data != nil {
		err := o.socket.SetData(ctx, o.reply.Data)
		if err != nil && !errors.Is(err, socketio.ErrDisconnected) {
			return fmt.Errorf("data: %w", err)
		}
	}
	for i, e := range o.emits {
		emit := func(b socketio.Broadcast) error { return b.Emit(ctx, e.Event, e.Args...) }
		what := fmt.Sprint("emit ", i)
		if o.reply.Emits[i].Self {
			what = o.toSelf(what)
		}
		if err := o.insist(ctx, e.Broadcast, what, emit); err != nil {
			return fmt.Errorf("emit %d: %w", i, err)
		}
	}
	return nil
}

func (o *orders) self() socketio.Broadcast { return o.socket.Namespace().ToSocket(o.socket.ID()) }

// toSelf names what is for this socket: a client that sends its event again from another one, gets it there.
func (o *orders) toSelf(what string) string { return what + " " + o.socket.ID() }

// disconnect disconnects the client, wherever it is now.
func (o *orders) disconnect(ctx context.Context) error {
	if o.socket.Connected() {
		o.socket.Disconnect(false)
		return nil
	}
	return o.insist(ctx, o.self(), o.toSelf("disconnect"), func(b socketio.Broadcast) error { return b.DisconnectSockets(ctx, false) })
}

// insist publishes something, tries again if nothing was published, and gives up when ctx ends: the
// backend has processed the event already. For an event that its client has named, what is published has
// an id of its own. So another attempt of the client, or of this function after an unknown outcome,
// publishes only what is missing.
func (o *orders) insist(ctx context.Context, b socketio.Broadcast, what string, publish func(socketio.Broadcast) error) error {
	if o.id != "" {
		b = b.Keyed(&socketio.Once{ID: "hook " + o.id + " " + what, Untrusted: true})
	}
	again := func(err error) bool {
		return errors.Is(err, adapter.ErrNotPublished) || o.id != "" && failure(ctx, err).Code == unavailable
	}
	return repeat(ctx, again, func() error { return publish(b) })
}

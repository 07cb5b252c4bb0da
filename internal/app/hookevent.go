package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/hooks"
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
// that the backend has processed is not left half done because its client has gone. owner is that of the
// question.
func (h *Hooks) ask(ctx context.Context, m matter, owner string) error {
	e := m.Event
	if ctx.Err() != nil {
		return nil // the client has left, some time ago
	}
	id, err := m.questionID()
	if err == nil {
		err = h.Backend.Late(e.Received())
	}
	if err != nil {
		return answer(e, failure(ctx, err))
	}
	ctx = context.WithoutCancel(ctx)
	question := m.question(id)
	question.Owner = owner
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
		h.log().Warn("answer of the backend not carried out", zap.String("socket", e.Socket().ID()), zap.Error(err))
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
	s, all := m.Socket(), m.Array()
	if m.from > 0 {
		all.JSON = m.args()
	}
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

// args returns the arguments from the first one on as an array.
func (m *matter) args() json.RawMessage {
	text := []byte{'['}
	for i := m.from; i < m.Len(); i++ {
		if i > m.from {
			text = append(text, ',')
		}
		text = append(text, m.Raw(i)...)
	}
	return append(text, ']')
}

// orders are what the backend wants to be done for an event, checked.
type orders struct {
	socket *socketio.Socket
	id     string // of the question, if the client has named its event; or ""
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

// once names an emit, if the client has named its event: an attempt of the client that is answered again
// does not publish it again, also if the backend's answer is another one.
func (o *orders) once(index int) *socketio.Once {
	if o.id == "" {
		return nil
	}
	id := "hook " + o.id + " " + strconv.Itoa(index)
	if o.reply.Emits[index].Self { // as in onceID
		id += " " + o.socket.ID()
	}
	return &socketio.Once{ID: id, Untrusted: true}
}

// execute carries out all but the ack and the disconnect. Joins and leaves are commands to the socket,
// so they reach its client also if it has moved to another node or is between two connections, and a
// weaker token does not undo them.
func (o *orders) execute(ctx context.Context) error {
	self := o.self()
	if len(o.reply.Leave) > 0 {
		if err := insist(ctx, func() error { return self.SocketsLeave(ctx, o.reply.Leave...) }); err != nil {
			return fmt.Errorf("leave: %w", err)
		}
	}
	if len(o.reply.Join) > 0 {
		if err := insist(ctx, func() error { return self.SocketsJoin(ctx, o.reply.Join...) }); err != nil {
			return fmt.Errorf("join: %w", err)
		}
	}
	if o.reply.Data != nil {
		err := insist(ctx, func() error { return o.socket.SetData(ctx, json.RawMessage(o.reply.Data)) })
		if err != nil && !errors.Is(err, socketio.ErrDisconnected) {
			return fmt.Errorf("data: %w", err)
		}
	}
	for i, e := range o.emits {
		if err := o.emit(ctx, e, o.once(i)); err != nil {
			return fmt.Errorf("emit %d: %w", i, err)
		}
	}
	return nil
}

// emit emits an event. With a name it is repeated also if it may have been published.
func (o *orders) emit(ctx context.Context, e Emit, name *socketio.Once) error {
	again := unpublished
	if name != nil {
		again = func(err error) bool { return failure(ctx, err).Code == unavailable }
	}
	return repeat(ctx, again, func() error { return e.Broadcast.Keyed(name).Emit(ctx, e.Event, e.Args...) })
}

func (o *orders) self() socketio.Broadcast { return o.socket.Namespace().ToSocket(o.socket.ID()) }

// disconnect disconnects the client, wherever it is now.
func (o *orders) disconnect(ctx context.Context) error {
	if o.socket.Connected() {
		o.socket.Disconnect(false)
		return nil
	}
	return insist(ctx, func() error { return o.self().DisconnectSockets(ctx, false) })
}

// unpublished reports whether a call has failed for the reason that nothing was published.
func unpublished(err error) bool { return errors.Is(err, adapter.ErrNotPublished) }

// insist calls f until it does not fail because nothing was published, or ctx ends: the backend has
// processed the event already.
func insist(ctx context.Context, f func() error) error { return repeat(ctx, unpublished, f) }

// repeat calls f until again does not accept its error, or ctx ends.
func repeat(ctx context.Context, again func(error) bool, f func() error) error {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := f()
		if err == nil || !again(err) {
			return err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
	}
}

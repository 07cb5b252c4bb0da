package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A Broadcast holds an event's receivers and delivery options. It is a value: each method returns a
// changed copy, so a Broadcast can be kept and reused, by any number of goroutines.
//
// Without To it addresses every socket of the namespace. An empty To addresses no socket, unlike in
// the reference implementation, where it addresses all. Each method of a [Namespace] that a Broadcast
// has as well begins with a broadcast to everyone.
type Broadcast struct{ emitter }

// An emitter has the methods that a Broadcast shares with a Namespace.
type emitter struct {
	ns      *Namespace
	by      *Socket // the socket that it began with; nil if it began with a namespace
	to      roomList
	self    bool // addresses by alone
	aimed   bool // To or ToSocket was called
	except  roomList
	flags   uint8
	local   bool
	timeout time.Duration
	once    *Once // nil for none
}

// Everyone begins a broadcast to the whole namespace.
func (n *Namespace) Everyone() Broadcast { return Broadcast{n.emitter} }

// To adds named rooms to the receivers. A socket in several of them gets the event once. A name
// always means a named room, even if it equals a socket's id.
func (b emitter) To(names ...string) Broadcast {
	b.to = b.to.with(inNamed(b.ns.name, names))
	b.aimed, b.self = true, false
	return Broadcast{b}
}

// In is an alias of To.
func (b emitter) In(names ...string) Broadcast { return b.To(names...) }

// ToSocket adds single sockets, on any node of the cluster. IDs longer than 200 bytes are refused
// like names of rooms, when the broadcast is used.
func (b emitter) ToSocket(ids ...string) Broadcast {
	b.to = b.to.with(inOwn(b.ns.name, ids))
	b.aimed, b.self = true, false
	return Broadcast{b}
}

// Except excludes the members of named rooms.
func (b emitter) Except(names ...string) Broadcast {
	b.except = b.except.with(inNamed(b.ns.name, names))
	return Broadcast{b}
}

// ExceptSocket excludes single sockets.
func (b emitter) ExceptSocket(ids ...string) Broadcast {
	b.except = b.except.with(inOwn(b.ns.name, ids))
	return Broadcast{b}
}

// Local keeps the event on this node: it goes to this node's sockets immediately, has no place in
// the order and is not kept for clients that reconnect. A local SocketsJoin begins at the current
// position of this node's feed: events published shortly before may still arrive. A client that is
// reconnecting during a local DisconnectSockets may be recovered afterwards.
func (b emitter) Local() Broadcast { b.local = true; return Broadcast{b} }

// Volatile allows the event to be lost: it is not kept, and it is dropped for a client that has 64
// KiB or more queued or whose socket is joining, leaving or recovering.
func (b emitter) Volatile() Broadcast { b.flags |= flagVolatile; return Broadcast{b} }

// Compress sets whether polling responses may be compressed for this event; by default they may.
// For WebSockets the server's options decide.
func (b emitter) Compress(on bool) Broadcast {
	if b.flags &^= flagNoCompress; !on {
		b.flags |= flagNoCompress
	}
	return Broadcast{b}
}

// Timeout bounds the wait for answers and replaces Options.AckTimeout. 0 removes an earlier
// Timeout; d must not be negative.
func (b emitter) Timeout(d time.Duration) Broadcast { b.timeout = d; return Broadcast{b} }

// Emit sends an event. It blocks until the adapter has answered, at most until ctx ends. When it
// returns without error the event has its place in the order and, unless volatile or local, is in
// the backlog. After an error that wraps adapter.ErrUnavailable the event may or may not have been
// sent; after any other error it was not. adapter.ErrNotPublished means that a retry may succeed.
//
// A broadcast may name at most 10,000 rooms and sockets, including those of Except. The size of the
// event times the number of its target rooms and sockets may be at most 32 MiB. Beyond that the
// error wraps ErrTooLarge.
//
// An event is stored and published once for each of its rooms. The server does not limit
// handlers: a handler that lets clients name rooms must bound their number and rate.
// [Broadcast.Place] reports how many rooms were new.
func (b emitter) Emit(ctx context.Context, event string, args ...any) error {
	_, err := b.Publish(ctx, event, args...)
	return err
}

// Send emits the event "message".
func (b emitter) Send(ctx context.Context, args ...any) error {
	return b.Emit(ctx, "message", args...)
}

// Publish emits as Emit does, and also returns the event's offset. The offset is empty if the
// event has none: it is local or has no receivers.
func (b emitter) Publish(ctx context.Context, event string, args ...any) (offset string, err error) {
	p, err := Broadcast{b}.Place(ctx, event, args...)
	return p.Offset, err
}

// Placed is the result of a published event.
type Placed struct {
	Offset string // empty if the event has none: it is local or has no receivers
	// NewRooms counts the rooms that had no member on any node and no kept event: a key in Redis
	// was made for each. It is a hint, for limits on the memory that a client may use.
	NewRooms int
}

// Place publishes as Publish does, and also reports how many rooms were new.
func (b Broadcast) Place(ctx context.Context, event string, args ...any) (Placed, error) {
	var ev adapter.Event
	if err := b.event(&ev, event, args); err != nil {
		return Placed{}, err
	}
	r, err := b.publish(ctx, ev)
	if err != nil || r.Cursor.IsZero() {
		return Placed{}, err
	}
	return Placed{b.ns.srv.offsets.format(r.Cursor), r.NewRooms}, nil
}

// reachable returns ErrDisconnected for a broadcast to one socket that has ended.
func (b emitter) reachable() error {
	if b.self && b.by.hasEnded() {
		return ErrDisconnected
	}
	return nil
}

// target returns the broadcast's target. The error wraps ErrTooLarge if the call names too many rooms,
// including others that are not part of the target, or is ErrRoomName if a name is too long: each name
// becomes part of keys in Redis.
func (b emitter) target(others int) (rooms.Target, error) {
	t := rooms.Target{To: b.to.all(), Except: b.except.all()}
	for _, list := range [...][]rooms.Room{t.To, t.Except} {
		for i := range list {
			if len(list[i].Name) > maxRoomName {
				return t, ErrRoomName
			}
		}
	}
	n := len(t.To) + len(t.Except) + others
	if b.by != nil && len(t.Except) > 0 {
		n-- // the sender, which the caller has not named
	}
	if n > adapter.MaxRooms {
		return t, fmt.Errorf("%w: %d rooms, at most %d are allowed", ErrTooLarge, n, adapter.MaxRooms)
	}
	if !b.aimed {
		t.To = []rooms.Room{rooms.InEveryone(b.ns.name)}
	}
	return t, nil
}

// event makes the event of an Emit.
func (b emitter) event(ev *adapter.Event, name string, args []any) (err error) {
	if err := b.reachable(); err != nil {
		return err
	}
	ev.Kind, ev.Flags, ev.Stored = kindEmit, b.flags, b.flags&flagVolatile == 0
	if ev.Target, err = b.target(0); err != nil {
		return err
	}
	if ev.Data, ev.Attachments, err = encodeEmit(name, args); err != nil {
		return err
	}
	return checkSize(ev)
}

// checkSize runs first in every publish, also for events that are published in another form or not
// at all, so that all calls have the same limit.
func checkSize(ev *adapter.Event) error {
	if err := ev.CheckSize(); err != nil {
		return fmt.Errorf("socketio: %w", err)
	}
	return nil
}

// publish publishes an event, with the broadcast's key if it has one. The receipt is zero if the event
// stays on this node.
func (b emitter) publish(ctx context.Context, ev adapter.Event) (r adapter.Receipt, err error) {
	n := b.ns
	if b.local {
		n.deliverLocal(ev)
		return r, nil
	}
	ev.Once = b.once.key(n.srv.opts.completion())
	r, err = n.srv.adapter.Publish(ctx, ev)
	if b.once != nil {
		b.once.Repeated = r.Repeated
	}
	switch {
	case err != nil && ctx.Err() == nil && ev.Flags&flagVolatile != 0 && (errors.Is(err, adapter.ErrUnavailable) || errors.Is(err, adapter.ErrNotPublished)):
		// It is dropped, as volatile events may be.
		n.srv.stats.volatileDropped.Add(1)
		return adapter.Receipt{}, nil
	case err != nil:
		return r, fmt.Errorf("socketio: publish: %w", err)
	}
	if !r.Repeated {
		n.srv.stats.eventsOut.Add(1)
	}
	b.notePublished(ctx, ev.Target, r)
	return r, nil
}

// command publishes a change for the target's members. It is stored, so that it also reaches
// members that are between two connections.
func (b emitter) command(ctx context.Context, kind, flags uint8, names []string) error {
	target, err := b.target(len(names))
	if err != nil {
		return err
	}
	if err := checkRooms(names); err != nil {
		return err
	}
	data, err := json.Marshal(names)
	if err != nil {
		return err
	}
	if err := b.reachable(); err != nil {
		return err
	}
	ev := adapter.Event{Kind: kind, Flags: flags, Target: target, Stored: true, Data: data}
	if err := checkSize(&ev); err != nil {
		return err
	}
	if kind != kindDisconnect && !b.local {
		if ev.Attachments, err = b.ns.srv.heads(ctx); err != nil {
			return err
		}
	}
	r, err := b.publish(ctx, ev)
	if err != nil || kind == kindDisconnect || b.local {
		return err
	}
	if len(r.Copies) == 0 {
		r.Copies = []adapter.Copy{{At: r.Cursor.At, To: ev.Target.To}}
	}
	b.ns.awaitCommand(ctx, r.Copies)
	return nil
}

// SocketsJoin makes the target's members join rooms. It returns when the command has its place in
// the order and this node has reached it, for which it waits at most a second. So a later Join or
// Leave of a socket of this node takes effect after the command. The members get no event that was
// published to these rooms before the command, and every event after it except volatile ones, even
// if they join a little later on their nodes. This does not depend on recovery: the nodes read the
// events published meanwhile from the rooms' backlogs. A socket that cannot be given all of them is
// cut. A socket whose session would exceed 1 MiB, some 5,000 rooms with the longest names, is cut
// and begins a new session.
//
// With several partitions SocketsJoin takes two more round trips, "before" means before the call,
// "after" means after its return, and a socket may get these events after later events of other
// rooms. Until its node has the command, the socket does not count as a member where the rooms are
// excepted.
func (b emitter) SocketsJoin(ctx context.Context, names ...string) error {
	return b.command(ctx, kindJoin, 0, names)
}

// SocketsLeave makes the target's members leave rooms, ordered like SocketsJoin. With several
// partitions the members get every event that was published to the rooms before the call, and may
// get later events until their nodes have the command. Until then they also count as members where
// the rooms are excepted.
func (b emitter) SocketsLeave(ctx context.Context, names ...string) error {
	return b.command(ctx, kindLeave, 0, names)
}

// DisconnectSockets disconnects the target's members, as Socket.Disconnect does, ordered like
// SocketsJoin. A client that is between two connections reconnects as a new socket. With several
// partitions a member may get events published after the return until its node has the command, and
// may miss events to other rooms that were published shortly before the call. It cannot recover
// them.
func (b emitter) DisconnectSockets(ctx context.Context, closeConn bool) error {
	var flags uint8
	if closeConn {
		flags = flagCloseConn
	}
	return b.command(ctx, kindDisconnect, flags, nil)
}

// EmitWithAck publishes an event that requests an ack from every member. When it returns without
// error the event has been published, and the acks are collected until ctx ends or the timeout set
// by Timeout has passed. If there is no timeout and ctx has no deadline, Options.AckTimeout
// applies. The caller must not cancel ctx before it has the acks. After an error that wraps
// adapter.ErrUnavailable, or the end of the context, the event may have been published. The event
// is not stored, so clients that recover do not get it.
func (b emitter) EmitWithAck(ctx context.Context, event string, args ...any) (*Answers, error) {
	q, err := b.query(ctx, event, args)
	return b.ns.srv.gather(q, err)
}

func (b emitter) query(ctx context.Context, event string, args []any) (*query, error) {
	var ev adapter.Event
	if err := b.event(&ev, event, args); err != nil {
		return nil, err
	}
	ev.Stored = false
	return b.ask(ctx, ev, queryHeader{})
}

// ackOf returns the ack of a broadcast to one socket.
func (b emitter) ackOf(ctx context.Context, event string, args []any) (Args, error) {
	q, err := b.query(ctx, event, args)
	if err != nil {
		return Args{}, err
	}
	for a, err := range q.each {
		if silent, ok := err.(*UnansweredError); ok && silent.Err == nil && len(silent.Nodes) == 0 {
			err = ErrDisconnected
		}
		return a.Args, err
	}
	return Args{}, ErrDisconnected
}

// FetchSockets describes the target's members, on any node of the cluster. It waits for the
// answers of the nodes, for as long as EmitWithAck does. If a node is silent, or cannot have
// received the query, it returns the other nodes' answers and an *UnansweredError. A socket that a
// command is adding to a room, as right after SocketsJoin has returned, may be missing, because
// its node may not be subscribed to the room yet.
func (b emitter) FetchSockets(ctx context.Context) (all []RemoteSocket, err error) {
	for a, err := range b.fetch(ctx, nil) {
		if err != nil {
			return all, err
		}
		for _, d := range a.described {
			all = append(all, RemoteSocket{SocketInfo: d, Node: a.Node, ns: b.ns})
		}
	}
	return all, nil
}

// fetch yields the nodes' descriptions of the target's members, or pages of them.
func (b emitter) fetch(ctx context.Context, page *membersAfter) iter.Seq2[Answer, error] {
	return func(yield func(Answer, error) bool) {
		target, err := b.target(0)
		var q *query
		if err == nil {
			q, err = b.ask(ctx, adapter.Event{Kind: kindFetch, Target: target}, queryHeader{Members: page})
		}
		if err != nil {
			yield(Answer{}, err)
		} else if q != nil {
			q.each(yield)
		}
	}
}

// notePublished notes an event to a target for two sockets: the one whose handler published it,
// known from ctx, and the one that the broadcast began with. The socket in ctx may belong to
// another server.
func (b emitter) notePublished(ctx context.Context, target rooms.Target, r adapter.Receipt) {
	if b.by != nil {
		b.by.published(target, r)
	}
	s, _ := ctx.Value(socketKey{}).(*Socket)
	if s != nil && s != b.by && (s.ns.srv == b.ns.srv || s.ns.srv.feed.brings(r)) {
		s.published(target, r)
	}
}

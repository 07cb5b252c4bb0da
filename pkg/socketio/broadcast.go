package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A Broadcast says whom an event is for and how it is delivered. It is a value:
// each step returns a changed copy, so one can be kept and used again, by any
// number of goroutines.
//
// Without To it is for everyone in the namespace. An empty To is for nobody,
// unlike in the reference, where it is for everyone.
type Broadcast struct {
	ns      *Namespace
	by      *Socket // that it began with; nil for a namespace's
	to      []rooms.Room
	self    bool // it is for by alone
	aimed   bool // To or ToSocket was called
	except  []rooms.Room
	flags   uint8
	local   bool
	timeout time.Duration
}

// To adds named rooms to those that the event goes to. A socket in several of
// them gets it once. A name always means a named room, also where it is some
// socket's id.
func (b Broadcast) To(names ...string) Broadcast {
	b.to = append(b.to[:len(b.to):len(b.to)], inNamed(b.ns.name, names)...)
	b.aimed, b.self = true, false
	return b
}

// In is To.
func (b Broadcast) In(names ...string) Broadcast { return b.To(names...) }

// ToSocket adds single sockets, wherever in the cluster they are. IDs of more than
// 200 bytes are refused like names of rooms, when the broadcast is used.
func (b Broadcast) ToSocket(ids ...string) Broadcast {
	b.to = append(b.to[:len(b.to):len(b.to)], inOwn(b.ns.name, ids)...)
	b.aimed, b.self = true, false
	return b
}

// Except spares the members of named rooms.
func (b Broadcast) Except(names ...string) Broadcast {
	b.except = append(b.except[:len(b.except):len(b.except)], inNamed(b.ns.name, names)...)
	return b
}

// ExceptSocket spares single sockets.
func (b Broadcast) ExceptSocket(ids ...string) Broadcast {
	b.except = append(b.except[:len(b.except):len(b.except)], inOwn(b.ns.name, ids)...)
	return b
}

// Local keeps the event on this node: it goes to this node's sockets immediately, has
// no place in the order and is not kept for those who come back. A local SocketsJoin
// begins where this node's feed is: what was published shortly before may still come.
func (b Broadcast) Local() Broadcast { b.local = true; return b }

// Volatile lets the event be lost: it is dropped for a client that is behind, which
// has 64 KiB or more queued or whose socket is joining, leaving or recovering, and it is
// not kept.
func (b Broadcast) Volatile() Broadcast { b.flags |= flagVolatile; return b }

// Compress says whether polling responses may be compressed for this event; they
// may by default. On WebSockets the server's options decide.
func (b Broadcast) Compress(on bool) Broadcast {
	if b.flags &^= flagNoCompress; !on {
		b.flags |= flagNoCompress
	}
	return b
}

// Timeout bounds the wait for answers, in place of Options.AckTimeout.
func (b Broadcast) Timeout(d time.Duration) Broadcast { b.timeout = d; return b }

func (b Broadcast) target() rooms.Target {
	if !b.aimed {
		return rooms.Target{To: []rooms.Room{rooms.InEveryone(b.ns.name)}, Except: b.except}
	}
	return rooms.Target{To: b.to, Except: b.except}
}

// Emit sends an event. When it returns without error the event has its place in
// the order and, unless volatile or local, is in the backlog. An error that
// wraps adapter.ErrUnavailable leaves open whether it was sent; after any other
// it was not. adapter.ErrNotPublished says that the same call may succeed later.
//
// A broadcast may name 10,000 rooms and sockets, those of Except included, and the
// size of the event times the rooms and sockets that it goes to may be 32 MiB:
// beyond that the error wraps ErrTooLarge.
//
// An event is stored and published once for each of its rooms. The server does not limit
// what handlers do: one that lets clients name rooms must bound how many, and how often.
// [Broadcast.Place] tells what made-up rooms cost.
func (b Broadcast) Emit(ctx context.Context, event string, args ...any) error {
	_, err := b.Publish(ctx, event, args...)
	return err
}

// Send emits the event "message".
func (b Broadcast) Send(ctx context.Context, args ...any) error {
	return b.Emit(ctx, "message", args...)
}

// Publish is Emit and returns the event's offset, which is empty where it has
// none: for nobody, or local.
func (b Broadcast) Publish(ctx context.Context, event string, args ...any) (offset string, err error) {
	p, err := b.Place(ctx, event, args...)
	return p.Offset, err
}

// Placed tells what became of a published event.
type Placed struct {
	Offset string // empty where the event has none: for nobody, or local
	// NewRooms counts the rooms in which no node had a member, and of which no event was
	// kept: a key in Redis was made for each. It is a hint, for limits of what a client may
	// cause.
	NewRooms int
}

// Place is Publish, and tells more.
func (b Broadcast) Place(ctx context.Context, event string, args ...any) (Placed, error) {
	placed, err := b.reachable()
	if err != nil {
		return Placed{}, err
	}
	if !placed {
		return Placed{}, b.by.emitEarly(event, args)
	}
	ev, err := b.event(event, args)
	if err != nil {
		return Placed{}, err
	}
	if b.local {
		b.ns.deliverLocal(ev)
		return Placed{}, nil
	}
	r, err := b.ns.publish(ctx, b.by, ev)
	if err != nil || r.Cursor.IsZero() {
		return Placed{}, err
	}
	return Placed{b.ns.srv.offsets.format(r.Cursor), r.NewRooms}, nil
}

// reachable returns ErrDisconnected for a broadcast to one socket that is gone, and
// false for one that is not connected yet.
func (b Broadcast) reachable() (placed bool, err error) {
	if !b.self {
		return true, nil
	}
	b.by.mu.Lock()
	defer b.by.mu.Unlock()
	if b.by.gone {
		return false, ErrDisconnected
	}
	return b.by.placed && !b.by.rooms.born.IsZero(), nil // what is published before its birth is not for it
}

// checkRooms returns an error that wraps ErrTooLarge if a call names too many rooms,
// of which some may not be part of its target, or ErrRoomName if a name is too long:
// each name becomes a part of keys in Redis.
func (b Broadcast) checkRooms(others int) error {
	for _, list := range [...][]rooms.Room{b.to, b.except} {
		for i := range list {
			if len(list[i].Name) > maxRoomName {
				return ErrRoomName
			}
		}
	}
	n := len(b.to) + len(b.except) + others
	if b.by != nil && len(b.except) > 0 {
		n-- // the sender, whom the caller has not named
	}
	if n > adapter.MaxRooms {
		return fmt.Errorf("%w: %d rooms, at most %d are allowed", ErrTooLarge, n, adapter.MaxRooms)
	}
	return nil
}

// event makes the event of an emit.
func (b Broadcast) event(name string, args []any) (adapter.Event, error) {
	if err := b.checkRooms(0); err != nil {
		return adapter.Event{}, err
	}
	data, attachments, err := encodeEmit(name, args)
	ev := adapter.Event{
		Kind: kindEmit, Target: b.target(), Flags: b.flags, Stored: b.flags&flagVolatile == 0,
		Data: data, Attachments: attachments,
	}
	if err == nil {
		err = checkSize(&ev)
	}
	return ev, err
}

// checkSize is what a publish begins with, also for events that are not published as
// they are or not at all, so that all calls have the same limit.
func checkSize(ev *adapter.Event) error {
	if err := ev.CheckSize(); err != nil {
		return fmt.Errorf("socketio: %w", err)
	}
	return nil
}

// publish publishes an event, for the socket by unless that is nil.
func (n *Namespace) publish(ctx context.Context, by *Socket, ev adapter.Event) (r adapter.Receipt, err error) {
	r, err = n.srv.adapter.Publish(ctx, ev)
	switch {
	case err != nil && ctx.Err() == nil && ev.Flags&flagVolatile != 0 && (errors.Is(err, adapter.ErrUnavailable) || errors.Is(err, adapter.ErrNotPublished)):
		// It is dropped, as volatile events may be.
		n.srv.stats.volatileDropped.Add(1)
		return adapter.Receipt{}, nil
	case err != nil:
		return r, fmt.Errorf("socketio: publish: %w", err)
	}
	n.srv.stats.eventsOut.Add(1)
	n.notePublished(ctx, by, ev.Target, r)
	return r, nil
}

// command publishes what is to be done with the members of the target. It is
// stored, so that it also reaches those who are between two connections.
func (b Broadcast) command(ctx context.Context, kind, flags uint8, names []string) error {
	if err := b.checkRooms(len(names)); err != nil {
		return err
	}
	for _, name := range names {
		if err := checkRoom(name); err != nil {
			return err
		}
	}
	data, err := json.Marshal(names)
	if err != nil {
		return err
	}
	placed, err := b.reachable()
	switch {
	case err != nil:
		return err
	case b.self && kind == kindDisconnect && b.by.dismiss(flags&flagCloseConn != 0):
		return nil
	case !placed && kind == kindJoin:
		return b.by.Join(ctx, names...)
	case !placed && kind == kindLeave:
		return b.by.Leave(ctx, names...)
	}
	ev := adapter.Event{Kind: kind, Flags: flags, Target: b.target(), Stored: true, Data: data}
	if err := checkSize(&ev); err != nil {
		return err
	}
	if b.local {
		b.ns.deliverLocal(ev)
		return nil
	}
	if kind != kindDisconnect {
		if ev.Attachments, err = b.ns.srv.heads(ctx); err != nil {
			return err
		}
	}
	r, err := b.ns.publish(ctx, b.by, ev)
	if err != nil {
		return err
	}
	if kind != kindDisconnect {
		if len(r.Copies) == 0 {
			r.Copies = []adapter.Copy{{At: r.Cursor.At, To: ev.Target.To}}
		}
		b.ns.awaitCommand(ctx, r.Copies)
	}
	return nil
}

// SocketsJoin makes the target's members join rooms. It returns when that has
// its place in the order, and this node has come to it, for which it waits up to a
// second: a Join or Leave of a socket of this node after it comes after it. Of what is published to these rooms before they get
// nothing, and of what is published after, everything but volatile events, also
// where they join a little later on their nodes. This does not depend on recovery:
// the nodes read what was published meanwhile from the rooms' backlogs. A socket
// that can't be given all of it is cut. One whose session would exceed 1 MiB, some 5,000
// rooms with the longest names, is cut and begins a new session.
//
// With several partitions this takes two more round trips, "before" means before the
// call, "after" means after its return, and a socket may get what it is given in this
// way after later events of other rooms.
func (b Broadcast) SocketsJoin(ctx context.Context, names ...string) error {
	return b.command(ctx, kindJoin, 0, names)
}

// SocketsLeave makes the target's members leave rooms, in the order as
// SocketsJoin. With several partitions they get everything that was published to the
// rooms before the call, and may get what is published until their nodes have the
// command. Until then they count as members also where the rooms are excepted.
func (b Broadcast) SocketsLeave(ctx context.Context, names ...string) error {
	return b.command(ctx, kindLeave, 0, names)
}

// DisconnectSockets disconnects the target's members, as Socket.Disconnect does,
// in the order as SocketsJoin. A client that is between two connections comes
// back as a new socket. With several partitions a member may get what is published
// after the return until its node has the command, and is not recovered either.
func (b Broadcast) DisconnectSockets(ctx context.Context, closeConn bool) error {
	var flags uint8
	if closeConn {
		flags = flagCloseConn
	}
	return b.command(ctx, kindDisconnect, flags, nil)
}

// EmitWithAck publishes an event that requests an ack from every member. When it returns
// without error the event has been published, and the acks are gathered for as long as
// Timeout, the context or Options.AckTimeout says; the context must not end before.
// After an error that wraps ErrUnavailable, or the end of the context, the event may
// have been published. The event is not stored, so clients that recover do not get it.
func (b Broadcast) EmitWithAck(ctx context.Context, event string, args ...any) (*Answers, error) {
	q, err := b.inquire(ctx, event, args)
	return b.ns.srv.gather(q, err)
}

func (b Broadcast) inquire(ctx context.Context, event string, args []any) (*inquiry, error) {
	ev, err := b.event(event, args)
	if err != nil {
		return nil, err
	}
	if _, err := b.reachable(); err != nil {
		return nil, err
	}
	ev.Stored = false
	return b.ns.ask(ctx, b.by, ev, asking{}, b.timeout, b.local)
}

// FetchSockets describes the target's members, wherever in the cluster they are.
// If a node is silent, or can't have heard the question, it returns what the others
// said and an *UnansweredError. A socket that a command is taking into a room, as right
// after SocketsJoin has returned, may be missing, for its node may not hear the room yet.
func (b Broadcast) FetchSockets(ctx context.Context) (all []RemoteSocket, err error) {
	if err := b.checkRooms(0); err != nil {
		return nil, err
	}
	ev := adapter.Event{Kind: kindFetch, Target: b.target()}
	q, err := b.ns.ask(ctx, nil, ev, asking{}, b.timeout, b.local)
	if q == nil {
		return nil, err
	}
	q.each(func(a Answer, e error) bool {
		for _, d := range a.described {
			all = append(all, RemoteSocket{SocketInfo: d, Node: a.Node, ns: b.ns})
		}
		err = e
		return e == nil
	})
	return all, err
}

// encodeEmit returns an event as its JSON array and attachments.
func encodeEmit(event string, args []any) ([]byte, [][]byte, error) {
	if packet.Reserved(event) {
		return nil, nil, fmt.Errorf("%w: %q", ErrReserved, event)
	}
	all := make([]any, 0, 1+len(args))
	return encodeArray(append(append(all, event), args...))
}

func encodeArray(args []any) ([]byte, [][]byte, error) {
	b := append(make([]byte, 0, 64), '[')
	b, attachments, err := packet.AppendArgs(b, args...)
	if err != nil {
		return nil, nil, fmt.Errorf("socketio: arguments: %w", err)
	}
	return append(b, ']'), attachments, nil
}

func inOwn(namespace string, ids []string) []rooms.Room {
	list := make([]rooms.Room, len(ids))
	for i, id := range ids {
		list[i] = rooms.InOwn(namespace, id)
	}
	return list
}

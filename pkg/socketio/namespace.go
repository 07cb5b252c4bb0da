package socketio

import (
	"context"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A Namespace is a separate part of a server with its own sockets, rooms, handlers and middlewares.
// Its connections are shared with the other namespaces. Its methods are safe for concurrent use.
type Namespace struct {
	srv    *Server
	name   string
	parent *Parent // nil unless dynamic
	index  rooms.Index[*Socket]
	acks   atomic.Uint64 // from which the last ack id was made
	mail   mailbox       // for the events of other nodes

	pinned    bool          // made by Of, so not forgotten when it is empty
	announced chan struct{} // closed when the OnNamespace functions have returned; nil for none
	broken    bool          // one of them panicked; valid once announced is closed

	clients int // sockets in it or entering it; guarded by srv.mu

	mu      sync.RWMutex
	sockets map[string]*Socket // those that are connected, by id
	rules
	serverSide map[string][]Handler
	onRoom     []func(RoomEvent)
	roomEvents *watcher // calls onRoom; nil until there are any
	// occupancy counts the members of each room by their id, for onRoom. A recovered socket has the
	// id of the one that it replaces, and until that one has left there are two.
	occupancy map[string]map[string]int
}

// rules are an application's settings for a namespace or for all children of a parent. Slices are
// replaced, never changed, so a copy is a snapshot.
type rules struct {
	use       []func(context.Context, *ConnectRequest) error
	onConnect []func(*Socket)
	onAny     []Handler
	handlers  map[string][]Handler
}

func newNamespace(s *Server, name string, p *Parent) *Namespace {
	n := &Namespace{
		srv: s, name: name, parent: p,
		sockets: make(map[string]*Socket),
	}
	n.acks.Store(rand.Uint64())
	n.mail.started = true
	return n
}

// Name returns the namespace's name, with its leading slash.
func (n *Namespace) Name() string { return n.name }

func (n *Namespace) recovery() bool { return n.srv.opts.recovery() }

// Use adds a middleware, which is called for every client that requests to connect, in the order of
// registration. f may block, and may be called concurrently for different clients. An error refuses
// the client, which receives a connect_error and does not retry automatically. An error that wraps
// [ErrTemporary] closes the connection instead, so that stock clients reconnect and retry:
// immediately, or after 5 to 10 seconds if the connection has sockets in other namespaces, because
// these are disconnected as well.
//
// The context is that of the socket, [Socket.Context]. It ends when the client disconnects; for a
// client that is refused, [context.Cause] then returns the error.
func (n *Namespace) Use(f func(context.Context, *ConnectRequest) error) {
	checkFunc("Use", f)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.use = append(n.use[:len(n.use):len(n.use)], f)
}

// OnConnect calls f with every socket that connects, before its first event is
// handled, on the goroutine of its handlers.
func (n *Namespace) OnConnect(f func(*Socket)) {
	checkFunc("OnConnect", f)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.onConnect = append(n.onConnect[:len(n.onConnect):len(n.onConnect)], f)
}

// On registers a handler of an event for every socket of the namespace. A socket's own handlers
// of the event run first. On panics if h is nil or the event's name is reserved.
func (n *Namespace) On(event string, h Handler) {
	checkHandler("On", event, h)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handlers = withHandler(n.handlers, event, h)
}

// OnAny calls h with every event of every socket of the namespace, before the
// sockets' middlewares see it.
func (n *Namespace) OnAny(h Handler) {
	checkFunc("OnAny", h)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.onAny = append(n.onAny[:len(n.onAny):len(n.onAny)], h)
}

// withHandler returns a copy of a table with one more handler.
func withHandler(table map[string][]Handler, event string, h Handler) map[string][]Handler {
	grown := make(map[string][]Handler, len(table)+1)
	for name, hs := range table {
		grown[name] = hs
	}
	hs := grown[event]
	grown[event] = append(hs[:len(hs):len(hs)], h)
	return grown
}

// rulesNow returns the rules for a socket of the namespace: its parent's, if it has one, then its
// own.
func (n *Namespace) rulesNow() (both [2]rules) {
	if n.parent != nil {
		both[0] = n.parent.rulesNow()
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	both[1] = n.rules
	return both
}

// Sockets returns the connected sockets of this node, in no order.
func (n *Namespace) Sockets() iter.Seq[*Socket] {
	return func(yield func(*Socket) bool) {
		n.mu.RLock()
		all := make([]*Socket, 0, len(n.sockets))
		for _, s := range n.sockets {
			all = append(all, s)
		}
		n.mu.RUnlock()
		for _, s := range all {
			if !yield(s) {
				return
			}
		}
	}
}

// Socket returns this node's connected socket with the id, or nil.
func (n *Namespace) Socket(id string) *Socket {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.sockets[id]
}

// Len returns the number of connected sockets of this node.
func (n *Namespace) Len() int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return len(n.sockets)
}

// A RoomEvent describes a change of a named room on this node.
type RoomEvent struct {
	Kind     RoomEventKind
	Room     string
	SocketID string // of the socket that joined or left
}

// A RoomEventKind is the kind of a RoomEvent.
type RoomEventKind string

// Kinds of room events, in the order in which they occur.
const (
	RoomCreated RoomEventKind = "create-room" // before the first member joins
	RoomJoined  RoomEventKind = "join-room"
	RoomLeft    RoomEventKind = "leave-room"
	RoomDeleted RoomEventKind = "delete-room" // after the last member has left
)

// OnRoom calls f with changes of the named rooms on this node. It counts from its registration on,
// so register it before the first client connects. A socket that is recovered on the node that
// still serves it neither leaves nor joins.
//
// f is called after the event, on a separate goroutine, for one event after the other in their
// order: Join and Leave do not wait for it, and it may use sockets and the namespace. If it falls
// more than 8,192 events behind, further ones are dropped, which is logged. A panic is reported and
// has no other effect.
func (n *Namespace) OnRoom(f func(RoomEvent)) {
	checkFunc("OnRoom", f)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.onRoom = append(n.onRoom[:len(n.onRoom):len(n.onRoom)], f)
	if n.occupancy == nil {
		n.occupancy = make(map[string]map[string]int)
		n.roomEvents = newWatcher("OnRoom")
	}
}

// tellRooms reports that a socket has entered or left some rooms. It sorts their names.
func (n *Namespace) tellRooms(id string, joined bool, names ...string) {
	n.mu.RLock()
	listening := len(n.onRoom) > 0
	n.mu.RUnlock()
	if !listening {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	onRoom := n.onRoom
	slices.Sort(names)
	tell := func(kind RoomEventKind, room string) {
		n.roomEvents.tell(n.srv, 0, func() {
			for _, f := range onRoom {
				n.srv.guard("OnRoom", func() { f(RoomEvent{Kind: kind, Room: room, SocketID: id}) })
			}
		})
	}
	for _, name := range names {
		members := n.occupancy[name]
		switch {
		case joined:
			if members == nil {
				members = make(map[string]int)
				n.occupancy[name] = members
				tell(RoomCreated, name)
			}
			if members[id]++; members[id] == 1 {
				tell(RoomJoined, name)
			}
		case members[id] > 1:
			members[id]--
		case members[id] == 1:
			tell(RoomLeft, name)
			if delete(members, id); len(members) == 0 {
				delete(n.occupancy, name)
				tell(RoomDeleted, name)
			}
		}
	}
}

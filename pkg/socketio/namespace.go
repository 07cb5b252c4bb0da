package socketio

import (
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A Namespace is a separate part of a server with its own sockets, rooms, handlers and middlewares.
// Its connections are shared with the other namespaces. Its methods are safe for concurrent use.
type Namespace struct {
	emitter // to everyone
	srv     *Server
	name    string
	parent  *Parent // nil unless dynamic
	index   rooms.Index[*Socket]
	acks    atomic.Uint64 // from which the last ack id was made
	mail    mailbox       // for the events of other nodes

	pinned    bool          // made by Of, so not forgotten when it is empty
	announced chan struct{} // closed when the OnNamespace functions have returned; nil for none
	guarded   bool          // none of them panicked; valid once announced is closed

	// Guarded by srv.mu.
	clients int  // sockets in it or entering it
	dynamic bool // counts in Options.DynamicNamespaces

	registrations

	mu         sync.RWMutex
	sockets    map[string]*Socket // those that are connected, by id
	serverSide map[string][]Handler
	onRoom     []func(RoomEvent)
	roomEvents *watcher // calls onRoom
	// occupancy counts the members of each room by their id, for onRoom. A recovered socket has the
	// id of the one that it replaces, and until that one has left there are two.
	occupancy map[string]map[string]int
}

func newNamespace(s *Server, name string, p *Parent) *Namespace {
	n := &Namespace{srv: s, name: name, parent: p, roomEvents: newWatcher("OnRoom")}
	n.emitter.ns = n
	n.acks.Store(rand.Uint64())
	n.mail.started = true
	return n
}

// Name returns the namespace's name, with its leading slash.
func (n *Namespace) Name() string { return n.name }

// rulesNow returns the rules for a socket of the namespace: its parent's, if it has one, then its
// own.
func (n *Namespace) rulesNow() (both [2]rules) {
	if n.parent != nil {
		both[0] = n.parent.registered()
	}
	both[1] = n.registered()
	return both
}

// Sockets returns the connected sockets of this node, in no order.
func (n *Namespace) Sockets() iter.Seq[*Socket] {
	return func(yield func(*Socket) bool) {
		n.mu.RLock()
		all := slices.Collect(maps.Values(n.sockets))
		n.mu.RUnlock()
		slices.Values(all)(yield)
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

// OnRoom calls f with changes of the named rooms on this node. It reports the changes after its
// registration, so register it before the first client connects. A socket that is recovered on the node that
// still serves it neither leaves nor joins.
//
// f is called after the event, on a separate goroutine, for one event after the other in their
// order: Join and Leave do not wait for it, and it may use sockets and the namespace. If it falls
// more than 8,192 events behind, further ones are dropped, which is logged. A panic is reported and
// has no other effect.
func (n *Namespace) OnRoom(f func(RoomEvent)) {
	register("OnRoom", &n.mu, &n.onRoom, f)
}

// reportRooms reports that a socket has entered or left some rooms. It sorts their names.
func (n *Namespace) reportRooms(id string, joined bool, names ...string) {
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
	report := func(kind RoomEventKind, room string) {
		n.roomEvents.report(n.srv, 0, func() {
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
				put(&n.occupancy, name, members)
				report(RoomCreated, name)
			}
			if members[id]++; members[id] == 1 {
				report(RoomJoined, name)
			}
		case members[id] > 1:
			members[id]--
		case members[id] == 1:
			report(RoomLeft, name)
			if delete(members, id); len(members) == 0 {
				delete(n.occupancy, name)
				report(RoomDeleted, name)
			}
		}
	}
}

// add and remove maintain the namespace's table of connected sockets. A recovered socket has the id
// of the one that it replaces, so remove checks that the entry is its own.
func (n *Namespace) add(s *Socket) {
	n.mu.Lock()
	defer n.mu.Unlock()
	put(&n.sockets, s.id, s)
}

func (n *Namespace) remove(s *Socket, id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sockets[id] == s {
		delete(n.sockets, id)
	}
}

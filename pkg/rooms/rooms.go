// Package rooms answers two questions of one node: who is in which room, and
// whom an event is for.
//
// [Index] holds the local members of every room. [Target] names the rooms an
// event goes to and those it spares; its one [Target.Match] is the only place
// that decides whether a member is meant, so live delivery, replay and remote
// commands cannot disagree.
package rooms

// Kind says what sort of room a [Room] is. It is a type of its own so that no
// code has to guess from a name: a client that joins a named room called like
// somebody's socket id gets a different room from that socket's own.
type Kind uint8

const (
	// Everyone is the room of all sockets of a namespace. It has no name.
	Everyone Kind = iota
	// Named rooms are those that servers and clients join and leave by name.
	Named
	// Own is the room of one socket; its name is the socket's id.
	Own
	// Nodes is the room of every node of the cluster. No socket is in it, each
	// node hears it from its start, and it has no name.
	Nodes
)

// A Room is a set of sockets in one namespace. Rooms are comparable values and
// are used as map keys.
type Room struct {
	Namespace string // begins with a slash; empty only for Nodes
	Kind      Kind
	Name      string
}

// InEveryone returns the room of all sockets of a namespace.
func InEveryone(namespace string) Room { return Room{Namespace: namespace, Kind: Everyone} }

// InNamed returns the room with a name.
func InNamed(namespace, name string) Room {
	return Room{Namespace: namespace, Kind: Named, Name: name}
}

// InOwn returns the room that holds only the socket with this id.
func InOwn(namespace, socketID string) Room {
	return Room{Namespace: namespace, Kind: Own, Name: socketID}
}

// InNodes returns the room of every node.
func InNodes() Room { return Room{Kind: Nodes} }

// A Target names the members that an event is for: those of at least one room
// in To and of no room in Except. A Target with an empty To is for nobody.
// Targets are values; their slices are not changed once an event carries them.
type Target struct {
	To     []Room
	Except []Room
}

// Match reports whether a member is meant, given which rooms it is in. The
// caller decides what "in" means: a live delivery asks for the membership at
// the event's position, a replay asks the same of a stored session.
func (t Target) Match(in func(Room) bool) bool {
	for _, r := range t.Except {
		if in(r) {
			return false
		}
	}
	for _, r := range t.To {
		if in(r) {
			return true
		}
	}
	return false
}

// Package rooms records which sockets of one node are in which room, and determines the receivers
// of an event.
//
// [Index] holds the local members of every room. [Target] names the rooms an event goes to and
// those it excludes. [Target.Match] decides whether a member receives it, given the rooms that it is
// in; the Event of package adapter does the same for positions.
package rooms

// Kind is the type of a [Room]. It is explicit so that no code derives it from a name: a client
// that joins a named room whose name equals a socket's id gets a different room from that
// socket's own.
type Kind uint8

const (
	// Everyone is the room of all sockets of a namespace. It has no name.
	Everyone Kind = iota
	// Named rooms are the rooms that servers and clients join and leave by name.
	Named
	// Own is the room of one socket; its name is the socket's id.
	Own
	// Nodes is the room of every node of the cluster. No socket is in it, each node is subscribed
	// to it from its start, and it has no name.
	Nodes
)

// A Room is a set of sockets in one namespace. Rooms are comparable values and
// are used as map keys.
type Room struct {
	Namespace string // begins with a slash; empty only for Nodes
	Kind      Kind
	Name      string
}

// InEveryone returns the room of all sockets of a namespace. Like InNamed, InOwn and InNodes it
// constructs a Room; it does not report whether a socket is in it.
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

// A Target names the members that an event is for: those of at least one room in To and of no room
// in Except. A Target with an empty To has no receivers. Targets are values; their slices must not
// be changed once an event carries them.
type Target struct {
	To     []Room
	Except []Room
}

// Match reports whether a member receives the event, given which rooms it is in. The caller decides
// what "in" means: a live delivery checks the membership at the event's position, a replay checks
// the same in a stored session.
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

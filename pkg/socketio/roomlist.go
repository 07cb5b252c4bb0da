package socketio

import (
	"unicode/utf8"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A roomList is a list of rooms that never changes: a longer one refers to the one that it began
// with. So a call that adds a room costs the same for any length of the list, and lists that
// began with the same one do not affect each other. The zero list is empty.
type roomList struct {
	before *roomList // nil if there is no other part
	added  []rooms.Room
	count  int // of before and added
}

// with returns the list with further rooms. They must not be changed any more.
func (l roomList) with(added []rooms.Room) roomList {
	switch {
	case len(added) == 0:
		return l
	case l.count == 0:
		return roomList{added: added, count: len(added)}
	}
	before := l // allocated here only
	return roomList{&before, added, l.count + len(added)}
}

// all returns the rooms, which must not be changed.
func (l roomList) all() []rooms.Room {
	if l.before == nil {
		return l.added
	}
	list := make([]rooms.Room, l.count)
	end := l.count
	for part := &l; part != nil; part = part.before {
		end -= len(part.added)
		copy(list[end:], part.added)
	}
	return list
}

// inEach returns the rooms of a kind with some names.
func inEach(namespace string, names []string, in func(namespace, name string) rooms.Room) []rooms.Room {
	list := make([]rooms.Room, len(names))
	for i, name := range names {
		list[i] = in(namespace, name)
	}
	return list
}

func inNamed(namespace string, names []string) []rooms.Room {
	return inEach(namespace, names, rooms.InNamed)
}

func inOwn(namespace string, ids []string) []rooms.Room { return inEach(namespace, ids, rooms.InOwn) }

func checkRooms(names []string) error {
	for _, name := range names {
		if name == "" || len(name) > maxRoomName || !utf8.ValidString(name) {
			return ErrRoomName
		}
	}
	return nil
}

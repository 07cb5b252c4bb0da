package adapter

import (
	"fmt"
	"iter"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A Copy is an event's copy in one of several partitions.
type Copy struct {
	At Position
	To []rooms.Room
}

// For reports whether the event is for a member, and none of its earlier copies is. in reports
// whether the member was in a room at a position. Live delivery, replay and remote commands all use
// it.
func (e *Event) For(in func(rooms.Room, Position) bool) bool {
	_, earlier := e.Instead(in)
	return !earlier && meant(e.Target, e.Position, in)
}

// Instead returns the position of the earlier copy of the event that the member takes instead of this
// one, if there is one.
func (e *Event) Instead(in func(rooms.Room, Position) bool) (at Position, found bool) {
	for _, c := range e.Earlier {
		if meant(rooms.Target{To: c.To, Except: e.Target.Except}, c.At, in) {
			return c.At, true
		}
	}
	return at, false
}

func meant(t rooms.Target, at Position, in func(rooms.Room, Position) bool) bool {
	return t.Match(func(r rooms.Room) bool { return in(r, at) })
}

// fewRooms is the number of an event's rooms up to which a TargetIndex does not pay off.
const fewRooms = 32

// A TargetIndex decides as [Event.For] does, at a cost that depends on the rooms
// of the member and not on those that the event lists. It is safe for concurrent
// use.
type TargetIndex struct {
	event      *Event
	to, except roomSet
	earlier    []roomSet
}

type roomSet map[rooms.Room]struct{}

// NewTargetIndex returns an index of e, which must not change any more, or nil if
// e lists so few rooms that [Event.For] costs no more.
func NewTargetIndex(e *Event) *TargetIndex {
	n := len(e.Target.To) + len(e.Target.Except)
	for _, c := range e.Earlier {
		n += len(c.To)
	}
	if n <= fewRooms {
		return nil
	}
	x := &TargetIndex{event: e, to: newRoomSet(e.Target.To), except: newRoomSet(e.Target.Except)}
	for _, c := range e.Earlier {
		x.earlier = append(x.earlier, newRoomSet(c.To))
	}
	return x
}

func newRoomSet(list []rooms.Room) roomSet {
	set := make(roomSet, len(list))
	for _, r := range list {
		set[r] = struct{}{}
	}
	return set
}

// For is [Event.For]. own yields every room that the member was in at any
// position.
func (x *TargetIndex) For(in func(rooms.Room, Position) bool, own iter.Seq[rooms.Room]) bool {
	_, earlier := x.Instead(in, own)
	return !earlier && x.meant(x.to, x.event.Position, in, own)
}

// Instead is [Event.Instead], with own as for For.
func (x *TargetIndex) Instead(in func(rooms.Room, Position) bool, own iter.Seq[rooms.Room]) (at Position, found bool) {
	for i, c := range x.event.Earlier {
		if x.meant(x.earlier[i], c.At, in, own) {
			return c.At, true
		}
	}
	return at, false
}

func (x *TargetIndex) meant(to roomSet, at Position, in func(rooms.Room, Position) bool, own iter.Seq[rooms.Room]) bool {
	found := false
	for r := range own {
		_, spared := x.except[r]
		if spared && in(r, at) {
			return false
		}
		if !found {
			_, found = to[r]
			found = found && in(r, at)
		}
	}
	return found
}

// impliedRooms is the number of rooms of a target that the caller has not named: everyone, if there
// is only an exception, and the sender's own room, which is excepted.
const impliedRooms = 2

// CheckSize returns an error that wraps ErrTooLarge if e exceeds a limit of one call. Publish calls
// it first.
func (e *Event) CheckSize() error {
	if n := len(e.Target.To) + len(e.Target.Except); n > MaxRooms+impliedRooms {
		return fmt.Errorf("%w: %d rooms, at most %d are allowed", ErrTooLarge, n, MaxRooms)
	}
	if n := len(e.Attachments); n > MaxAttachments {
		return fmt.Errorf("%w: %d attachments, at most %d are allowed", ErrTooLarge, n, MaxAttachments)
	}
	size := len(e.Data) + len(e.Ask)
	for _, a := range e.Attachments {
		size += len(a)
	}
	if n := len(e.Target.To); n > 1 && size > MaxCopies/n {
		return fmt.Errorf("%w: %d bytes for each of %d rooms, at most %d bytes in all are allowed", ErrTooLarge, size, n, MaxCopies)
	}
	return nil
}

package adapter

import (
	"fmt"
	"iter"
	"slices"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A Copy is an event's copy in one of several partitions.
type Copy struct {
	At Position     // of the copy in its partition
	To []rooms.Room // the rooms of Target.To in that partition
}

// For reports whether the event is for a member and none of its earlier copies is. in reports
// whether the member was in a room at a position. Live delivery, replay and remote commands all use
// For.
func (e *Event) For(in func(rooms.Room, Position) bool) bool { return e.taken(in) == len(e.Earlier) }

// Instead returns the position of the earlier copy of the event that the member takes instead of this
// one, if there is one.
func (e *Event) Instead(in func(rooms.Room, Position) bool) (at Position, found bool) {
	return e.earlier(e.taken(in))
}

// taken returns the index of the copy that the member takes, or -1. The member takes no copy behind
// one at which it was in an excepted room. Otherwise a command that joins it to the excepted room,
// at positions that cover only the first copy, would make it take the second copy. But the member
// may have received the first one before the command.
func (e *Event) taken(in func(rooms.Room, Position) bool) int {
	for i := range len(e.Earlier) + 1 {
		c := e.copy(i)
		was := func(r rooms.Room) bool { return in(r, c.At) }
		if slices.ContainsFunc(e.Target.Except, was) {
			return -1
		}
		if slices.ContainsFunc(c.To, was) {
			return i
		}
	}
	return -1
}

// copy returns the i-th known copy: the earlier ones come first, then this one.
func (e *Event) copy(i int) Copy {
	if i < len(e.Earlier) {
		return e.Earlier[i]
	}
	return Copy{e.Position, e.Target.To}
}

func (e *Event) earlier(i int) (at Position, found bool) {
	if i < 0 || i == len(e.Earlier) {
		return at, false
	}
	return e.Earlier[i].At, true
}

// fewRooms is the number of an event's rooms up to which a TargetIndex saves no work.
const fewRooms = 32

// A TargetIndex decides as [Event.For] does, at a cost that depends on the rooms
// of the member and not on those that the event lists. It is safe for concurrent
// use.
type TargetIndex struct {
	event  *Event
	except roomSet
	to     []roomSet // of each copy
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
	x := &TargetIndex{event: e, except: newRoomSet(e.Target.Except)}
	for i := range len(e.Earlier) + 1 {
		x.to = append(x.to, newRoomSet(e.copy(i).To))
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
	return x.taken(in, own) == len(x.event.Earlier)
}

// Instead is [Event.Instead], with own as for For.
func (x *TargetIndex) Instead(in func(rooms.Room, Position) bool, own iter.Seq[rooms.Room]) (at Position, found bool) {
	return x.event.earlier(x.taken(in, own))
}

func (x *TargetIndex) taken(in func(rooms.Room, Position) bool, own iter.Seq[rooms.Room]) int {
	for i, to := range x.to {
		at, found := x.event.copy(i).At, false
		for r := range own {
			if _, excepted := x.except[r]; excepted && in(r, at) {
				return -1
			}
			if !found {
				_, found = to[r]
				found = found && in(r, at)
			}
		}
		if found {
			return i
		}
	}
	return -1
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

package adapter

import (
	"container/list"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// Heap overheads in bytes, rounded up a little.
const (
	eventOverhead      = 336 // of an event in a backlog: itself, its place in the list, rounding of allocations
	roomOverhead       = 48  // of a room in an event's list
	attachmentOverhead = 40
	backlogOverhead    = 320 // of a room with a backlog, including its entries in the table and in the list
	shareOverhead      = 80  // of an event that several backlogs share
)

// size returns the memory of e, in bytes, without the memory that it shares with its
// copies.
func (e *Event) size() int {
	n := eventOverhead + roomsSize(e.Target.To)
	if e.copies <= 1 {
		n += e.sharedSize()
	}
	return n
}

// sharedSize returns the memory, in bytes, that the copies of e share. Spare capacity counts,
// because it is held.
func (e *Event) sharedSize() int {
	n := len(e.Ask) + cap(e.Data) + roomsSize(e.Target.Except)
	for _, a := range e.Attachments {
		n += attachmentOverhead + cap(a)
	}
	return n
}

// roomsSize returns the memory of a list of rooms, in bytes.
func roomsSize(list []rooms.Room) int {
	n := 0
	for i := range list {
		n += roomOverhead + len(list[i].Name)
	}
	return n
}

// payload returns the size of e's payload, in bytes.
func (e *Event) payload() int {
	n := len(e.Data)
	for _, a := range e.Attachments {
		n += len(a)
	}
	return n
}

// backlogs keeps the newest stored events of every room. It is not safe for concurrent use, but the
// slices that it returns do not change. Its reads expect sweep to have been called.
type backlogs struct {
	limit    int // minimum kept per room; the maximum is twice that
	maxBytes int // over all rooms
	ttl      time.Duration

	// awaited reports whether a room has members, or may have disconnected members.
	awaited func(rooms.Room) bool

	byRoom map[rooms.Room]*backlog
	// Lists of *backlog, the longest silent one first: of rooms that are not awaited, which are
	// dropped first, and of the others.
	idle, quiet list.List
	bytes       int // of all backlogs, including shared memory
	shares      map[Position]*share
	// dropped counts the backlogs that were dropped because of the memory limit.
	dropped uint64

	// forgotten is, by bucket of rooms, the newest position that was dropped with a backlog; nil if
	// none was. A room may have lost the events up to there that were published before its backlog
	// began.
	forgotten []Position
}

// reset forgets everything, and that it was ever there.
func (bs *backlogs) reset() {
	*bs = backlogs{
		limit: bs.limit, maxBytes: bs.maxBytes, ttl: bs.ttl, awaited: bs.awaited, dropped: bs.dropped,
		byRoom: make(map[rooms.Room]*backlog),
		shares: make(map[Position]*share),
	}
}

// buckets is the number of buckets that rooms without a backlog are hashed to.
const buckets = 1 << 16

var bucketSeed = maphash.MakeSeed()

func bucket(room rooms.Room) int { return int(maphash.Comparable(bucketSeed, room) % buckets) }

// A share is the part of an event that several backlogs hold together.
type share struct{ backlogs, bytes int }

type backlog struct {
	room    rooms.Room
	events  []*Event // in the order of positions; never changed in place, because readers hold parts of it
	bytes   int
	trimmed Position // events up to here may be missing
	last    time.Time
	list    *list.List // idle or quiet
	element *list.Element
}

// add appends e to a room's backlog.
func (bs *backlogs) add(room rooms.Room, e *Event, now time.Time) {
	b := bs.byRoom[room]
	if b == nil {
		b = &backlog{room: room, trimmed: bs.lost(room), list: &bs.idle}
		if bs.awaited(room) {
			b.list = &bs.quiet
		}
		b.element = b.list.PushBack(b)
		bs.byRoom[room] = b
		bs.grow(b, backlogOverhead+len(room.Name))
	}
	b.list.MoveToBack(b.element)
	b.last = now
	b.events = append(b.events, e)
	bs.grow(b, e.size())
	if e.copies > 1 {
		bs.share(e)
	}
	if len(b.events) > 2*bs.limit {
		bs.trim(b)
	}
	for bs.bytes > bs.maxBytes {
		bs.dropped++
		from := &bs.idle
		if from.Len() == 0 {
			from = &bs.quiet
		}
		bs.drop(from)
	}
}

// lost returns the position up to which a room without a backlog may have lost events.
func (bs *backlogs) lost(room rooms.Room) Position {
	if bs.forgotten == nil {
		return Position{}
	}
	return bs.forgotten[bucket(room)]
}

// await records that a room has members. If it had none, its silence begins
// again.
func (bs *backlogs) await(room rooms.Room) {
	if b := bs.byRoom[room]; b != nil && b.list == &bs.idle {
		bs.idle.Remove(b.element)
		b.list, b.last = &bs.quiet, time.Now()
		b.element = bs.quiet.PushBack(b)
	}
}

// share counts one more backlog that holds e.
func (bs *backlogs) share(e *Event) {
	s := bs.shares[e.Position]
	if s == nil {
		s = &share{bytes: shareOverhead + e.sharedSize()}
		bs.shares[e.Position] = s
		bs.bytes += s.bytes
	}
	s.backlogs++
}

// release counts one backlog less for each of the events.
func (bs *backlogs) release(events []*Event) {
	for _, e := range events {
		if e.copies <= 1 {
			continue
		}
		s := bs.shares[e.Position]
		if s.backlogs--; s.backlogs == 0 {
			bs.bytes -= s.bytes
			delete(bs.shares, e.Position)
		}
	}
}

// trim keeps the newest limit events, in a slice with space for as many again.
func (bs *backlogs) trim(b *backlog) {
	cut := len(b.events) - bs.limit
	for _, e := range b.events[:cut] {
		bs.grow(b, -e.size())
	}
	bs.release(b.events[:cut])
	b.trimmed = b.events[cut-1].Position
	b.events = append(make([]*Event, 0, 2*bs.limit+1), b.events[cut:]...)
}

func (bs *backlogs) grow(b *backlog, bytes int) {
	b.bytes += bytes
	bs.bytes += bytes
}

// sweep drops the backlogs of rooms that have been silent for the ttl. Its cost is proportional to
// the number of backlogs and events that it drops.
func (bs *backlogs) sweep(now time.Time) {
	for _, all := range [...]*list.List{&bs.idle, &bs.quiet} {
		for f := all.Front(); f != nil && now.Sub(f.Value.(*backlog).last) >= bs.ttl; f = all.Front() {
			bs.drop(all)
		}
	}
}

// drop drops the backlog of the list's longest silent room.
func (bs *backlogs) drop(from *list.List) {
	b := from.Remove(from.Front()).(*backlog)
	delete(bs.byRoom, b.room)
	bs.bytes -= b.bytes
	bs.release(b.events)
	last := b.events[len(b.events)-1].Position
	if bs.forgotten == nil {
		bs.forgotten = make([]Position, buckets)
	}
	if lost := &bs.forgotten[bucket(b.room)]; last.Compare(*lost) > 0 {
		*lost = last
	}
}

// between returns a room's events after one position and up to another, or ErrTrimmed if some of
// them may be lost or they are more than the limit.
func (bs *backlogs) between(room rooms.Room, after, upTo Position) ([]*Event, error) {
	if after.Compare(upTo) >= 0 {
		return nil, nil
	}
	events, trimmed := bs.kept(room)
	if after.Compare(trimmed) < 0 {
		return nil, fmt.Errorf("%w: room %q has lost events", ErrTrimmed, room.Name)
	}
	events = events[countUpTo(events, after):countUpTo(events, upTo)]
	if len(events) > bs.limit {
		return nil, fmt.Errorf("%w: more than %d events in room %q", ErrTrimmed, bs.limit, room.Name)
	}
	return events, nil
}

// page returns a page of a room's events, and whether older ones are kept. If those are all that are
// kept after a position, and some may be lost, it returns ErrTrimmed with them.
func (bs *backlogs) page(room rooms.Room, page Page) (_ []*Event, more bool, err error) {
	events, trimmed := bs.kept(room)
	end, first := len(events), 0
	if !page.After.IsZero() {
		first = countUpTo(events, page.After.At)
	}
	if !page.UpTo.IsZero() {
		end = countUpTo(events, page.UpTo.At)
	}
	if !page.Before.IsZero() {
		before, _ := slices.BinarySearchFunc(events, page.Before.At, compareToPosition)
		end = min(end, before)
	}
	end = max(end, first)
	start, bytes := end, 0
	for start > first && end-start < page.Events {
		bytes += events[start-1].payload()
		if page.Bytes > 0 && bytes > page.Bytes && start < end {
			break
		}
		start--
	}
	if start == first && !page.After.IsZero() && page.After.At.Compare(trimmed) < 0 {
		err = fmt.Errorf("%w: room %q has lost events", ErrTrimmed, room.Name)
	}
	return events[start:end], start > first, err
}

// kept returns the kept events of a room, and the position up to which it may have lost events.
func (bs *backlogs) kept(room rooms.Room) (_ []*Event, trimmed Position) {
	if b := bs.byRoom[room]; b != nil {
		return b.events, b.trimmed
	}
	return nil, bs.lost(room)
}

// countUpTo returns the number of events at a position or before it.
func countUpTo(events []*Event, p Position) int {
	i, found := slices.BinarySearchFunc(events, p, compareToPosition)
	if found {
		i++
	}
	return i
}

func compareToPosition(e *Event, p Position) int { return e.Position.Compare(p) }

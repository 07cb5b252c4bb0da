package adapter

import (
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A memoryLog is a partition of a Memory: one clock, and the rooms whose events it numbers. Its
// methods are called with the memory's lock.
type memoryLog struct {
	epoch  string
	newest Position // of the clock

	subscribers map[rooms.Room][]*memoryPartition // each node once, no empty lists
	left        []int64                           // by bucket of rooms, when one lost its last subscriber, in Unix time; nil if none has
	backlogs    backlogs
	onces       onces

	receivers []*memoryPartition // of the event being published; kept to reuse its memory
	publishes uint64             // how often receivers was filled
}

// begin begins a history, with a random epoch.
func (l *memoryLog) begin() {
	l.epoch = rand.Text()[:8]
	l.backlogs.reset()
	l.onces = onces{}
	l.tick(time.Now())
}

// tick issues the next position. It follows the wall clock, but never goes back.
func (l *memoryLog) tick(now time.Time) Position {
	if ms := uint64(now.UnixMilli()); ms > l.newest.Ms {
		l.newest.Ms, l.newest.Seq = ms, 0
	} else {
		l.newest.Seq++
	}
	return l.newest
}

// head returns the cursor that covers everything.
func (l *memoryLog) head() Cursor { return Cursor{Epoch: l.epoch, At: l.newest} }

// check returns an error if positions of a history are proved not to belong to the current one.
func (l *memoryLog) check(history string, seen ...Position) error {
	if history != l.epoch {
		return fmt.Errorf("%w: %s is not the history %s", ErrHistoryLost, history, l.epoch)
	}
	for _, at := range seen {
		if at.Compare(l.newest) > 0 {
			return fmt.Errorf("%w: position %v is ahead of %v", ErrHistoryLost, at, l.newest)
		}
	}
	return nil
}

// publish gives e its position, stores it, and delivers it. Each backlog and each receiver gets
// what its own rooms need. If a receiver's feed is full it does none of that, and returns a channel
// that is closed when a retry may succeed.
func (l *memoryLog) publish(e *Event) (Receipt, <-chan struct{}, error) {
	now := time.Now()
	if e.Once != nil {
		if at, err := l.onces.find(e.Once, now); err != nil || at.Ms > 0 {
			r := Receipt{Cursor: Cursor{Epoch: l.epoch, At: at}, Repeated: err == nil}
			if r.Repeated {
				r.Age = now.Sub(at.Time())
			}
			return r, nil, err
		}
	}
	l.receivers = l.receivers[:0]
	l.publishes++
	for _, room := range e.Target.To {
		for _, p := range l.subscribers[room] {
			if p.receives == l.publishes {
				continue
			}
			p.receives = l.publishes
			if space := p.node.feed.Full(); space != nil {
				return Receipt{}, space, nil
			}
			l.receivers = append(l.receivers, p)
		}
	}
	l.backlogs.sweep(now)
	receipt := Receipt{Receivers: len(l.receivers), NewRooms: l.newRooms(e)}
	e.Position = l.tick(now)
	receipt.Cursor = l.head()
	if e.Once != nil {
		l.onces.add(e.Once, e.Position, now)
		e.Once = nil
	}
	l.store(e, now)
	l.deliver(e)
	return receipt, nil, nil
}

// newRooms returns how many rooms of an event have no subscriber, and no backlog yet.
func (l *memoryLog) newRooms(e *Event) (n int) {
	if !e.Stored {
		return 0
	}
	for _, room := range e.Target.To {
		if len(l.subscribers[room]) == 0 && l.backlogs.byRoom[room] == nil {
			n++
		}
	}
	return n
}

func (l *memoryLog) store(e *Event, now time.Time) {
	switch {
	case !e.Stored:
	case len(e.Target.To) == 1:
		l.backlogs.add(e.Target.To[0], e, now)
	default:
		for i, room := range e.Target.To {
			one := *e
			one.Target.To, one.copies = e.Target.To[i:i+1:i+1], uint32(len(e.Target.To)) // of at most MaxRooms
			l.backlogs.add(room, &one, now)
		}
	}
}

func (l *memoryLog) deliver(e *Event) {
	if len(e.Target.To) == 1 {
		for _, p := range l.receivers {
			p.deliver(e)
		}
		return
	}
	byNode := make(map[*memoryPartition]*Event, len(l.receivers))
	for _, room := range e.Target.To {
		for _, p := range l.subscribers[room] {
			if byNode[p] == nil {
				its := *e
				its.Target.To = nil
				byNode[p] = &its
			}
			byNode[p].Target.To = append(byNode[p].Target.To, room)
		}
	}
	for p, its := range byNode {
		p.deliver(its)
	}
}

// awaited reports whether a room has subscribers, or recently had some whose members may need its
// events when they reconnect.
func (l *memoryLog) awaited(room rooms.Room) bool {
	return len(l.subscribers[room]) > 0 || l.left != nil && time.Since(time.Unix(l.left[bucket(room)], 0)) <= l.backlogs.ttl+time.Second
}

// silence unsubscribes p from a room.
func (l *memoryLog) silence(p *memoryPartition, room rooms.Room) {
	delete(p.subscriptions, room)
	all := l.subscribers[room]
	i := slices.Index(all, p)
	if all = slices.Delete(all, i, i+1); len(all) == 0 {
		delete(l.subscribers, room)
		if l.left == nil {
			l.left = make([]int64, buckets)
		}
		l.left[bucket(room)] = time.Now().Unix()
	} else {
		l.subscribers[room] = all
	}
}

package feed

import (
	"slices"
	"time"
)

// leftHistories is the number of left histories that a node remembers.
const leftHistories = 64

// HasLeft reports whether the node was in a history and has left it.
func (f *Feed) HasLeft(epoch string) bool { return slices.Contains(f.left, epoch) }

// Memory returns the entries by which this node knows the current history: the newest in any reply,
// and the one up to which the feed is complete.
func (f *Feed) Memory() []Entry { return []Entry{f.known, EntryOf(f.tail)} }

// Observe notes an entry of a history's clock in a reply.
func (f *Feed) Observe(epoch string, e Entry, now time.Time) {
	if epoch == f.epoch && f.known.Before(e) {
		f.know(e, now)
	}
}

func (f *Feed) know(e Entry, now time.Time) {
	f.known, f.knownAt = e, now
	f.moveHorizon(now)
}

// Adopt makes a history the node's, unless the node's history is no longer before, its history
// when Redis was asked. It reports whether the history is the node's afterwards. If the node had
// another history, its members have events that are not part of the new one, so a loss is
// reported.
func (f *Feed) Adopt(before, epoch string, newest Entry, now time.Time) (bool, *Output) {
	f.input(Space{})
	if epoch == f.epoch {
		f.Observe(epoch, newest, now)
		return true, &f.out
	}
	if before != f.epoch {
		return false, &f.out
	}
	if f.gen != nil {
		f.stop()
	}
	former := f.epoch
	f.epoch, f.tail = epoch, newest.End(f.config.Partition)
	f.know(newest, now)
	f.former.confirm("", f.tail)
	if former == "" {
		return true, &f.out
	}
	for name, r := range f.rooms {
		if r.from != never {
			f.rooms[name] = room{r.to, f.tail}
		}
	}
	if f.left = append(f.left, former); len(f.left) > leftHistories {
		f.left = f.left[1:]
	}
	f.note(Note{What: NewHistory, Name: former})
	f.lose("Redis has lost its history", nil, f.tail)
	return true, &f.out
}

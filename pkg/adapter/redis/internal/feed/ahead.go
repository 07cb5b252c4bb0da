package feed

import (
	"math"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// No position is ahead of the clock: Redis issues a position before it sends the message that
// carries it. A message with a position ahead of the clock does not come from a node. If it were
// accepted, the feed would silently drop everything up to that position as duplicates.
//
// The horizon is this node's upper estimate of the clock. A message beyond it is held until the
// clock has been read again. Later messages are held behind it, because it must not come between
// two copies of an event. Then the position of each is either in the clock's past, and the message
// is accepted in its order, or it is refused. So a clock that really is ahead, as that of another
// host after a failover, costs one read.
//
// A message between the clock and the horizon is accepted. If it makes the feed drop later
// messages, the first dropped one reveals it, because positions arrive in order. The loss is then
// reported.

// horizonSlack is the distance of the horizon from the estimated clock. The estimate is late by
// the time that a reply takes.
const horizonSlack = time.Second

// Limits of the messages held for one generation. Beyond them there is a gap, which is read
// again.
const (
	AheadMessages = 4096
	aheadBytes    = 16 << 20
)

// ahead holds messages, in order, until the clock has been read.
type ahead struct {
	messages []Message
	bytes    int
	asked    int  // those among the first that arrived before a read of the clock was requested
	looking  bool // a read of the clock is requested
}

// moveHorizon advances the horizon by the time since the clock was seen.
func (f *Feed) moveHorizon(now time.Time) {
	passed := max(now.Sub(f.knownAt), 0) + horizonSlack
	f.horizon = f.known.Ms + min(uint64(passed.Milliseconds()), math.MaxUint64-f.known.Ms)
}

// Beyond reports whether a position is beyond the horizon as it was last moved.
func (f *Feed) Beyond(at adapter.Position) bool { return at.Ms > f.horizon }

// isAhead reports whether a position is beyond the horizon.
func (f *Feed) isAhead(at adapter.Position, now time.Time) bool {
	f.moveHorizon(now)
	return f.Beyond(at)
}

// hold keeps a message until the clock has been read.
func (f *Feed) hold(m Message) {
	a := &f.gen.ahead
	if len(a.messages) >= AheadMessages || a.bytes+len(m.Payload) > aheadBytes {
		a.release(len(a.messages))
		f.overflow()
		return
	}
	a.messages = append(a.messages, m)
	a.bytes += len(m.Payload)
	if !a.looking {
		f.look()
	}
}

// look requests a read of the clock, which covers the messages that are held by now.
func (f *Feed) look() {
	a := &f.gen.ahead
	a.looking, a.asked, f.out.Look = true, len(a.messages), true
}

// release drops the first n held messages.
func (a *ahead) release(n int) {
	for _, m := range a.messages[:n] {
		a.bytes -= len(m.Payload)
	}
	a.asked = max(a.asked-n, 0)
	if a.messages = a.messages[n:]; len(a.messages) == 0 {
		a.messages = nil
	}
}

// Looked processes the newest entry of the clock of a history, as Redis has returned it after a
// request to look. Messages that it covers are accepted. Others that arrived before the request are
// refused, and those that arrived later are judged by the new horizon.
func (f *Feed) Looked(epoch string, newest Entry, now time.Time, s Space) *Output {
	if !f.input(s) {
		return &f.out
	}
	if epoch != f.epoch {
		f.look()
		return &f.out
	}
	f.Observe(epoch, newest, now)
	a, end := &f.gen.ahead, newest.End(f.config.Partition)
	for len(a.messages) > 0 {
		m := a.messages[0]
		switch {
		case m.At.Compare(end) <= 0:
			f.accept(m)
		case a.asked > 0:
			f.note(Note{What: Ahead, Name: m.Name, At: m.At, Than: end})
		case !f.isAhead(m.At, now):
			f.accept(m)
		default:
			f.look()
			return &f.out
		}
		a.release(1)
	}
	a.looking = false
	return &f.out
}

// repeated is called with a message that is dropped because the feed is past its position. If an
// earlier message, and not a catch-up, has moved the feed there, that message was ahead of the
// clock.
func (f *Feed) repeated(at adapter.Position) {
	if g := f.gen; g.flow == passing && at.Compare(g.newest) < 0 {
		f.reveal(at)
	}
}

// reveal reports that the feed is ahead of the clock, because a message at a position arrived later.
func (f *Feed) reveal(at adapter.Position) {
	f.note(Note{What: WasAhead, At: f.tail, Than: at})
	f.lose("an event was ahead of the clock", nil, at)
	f.tail, f.gen.newest = at, at
	f.former.confirm(f.gen.server, at)
}

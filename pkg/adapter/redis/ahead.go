package redis

import (
	"math"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// No position is ahead of the clock: Redis issues a position before it sends the message that
// carries it. A message with a position ahead of the clock does not come from a node. If it were
// accepted, the feed would silently drop everything up to that position as duplicates.
//
// The horizon is this node's upper estimate of the clock. Messages beyond it are held until the
// clock has been read again. Then the position of each is either in the clock's past, and the
// message is accepted in its order, or it is refused. So a clock that really is ahead, as that of
// another host after a failover, costs one read. The horizon moves only while nothing is held: no
// message overtakes a held one.
//
// A message between the clock and the horizon is accepted. If it makes the feed drop later ones,
// the first message that is dropped reveals it, because positions arrive in order, and the loss is
// reported.

// horizonSlack is the distance of the horizon from the estimated clock: the estimate is behind by
// the time that a reply takes.
const horizonSlack = time.Second

// Limits of the messages held for one generation. More is a gap, which is read again.
const (
	aheadMessages = 4096
	aheadBytes    = 16 << 20
)

// ahead is a held message.
type ahead struct {
	name    string
	at      adapter.Position
	more    bool
	payload string
}

// know notes the newest entry of the clock. p.mu is held.
func (p *partition) know(e entry) {
	p.known, p.knownAt = e, time.Now()
	p.moveHorizon()
}

// moveHorizon advances the horizon by the time since the clock was seen. p.mu is held.
func (p *partition) moveHorizon() {
	if p.gen != nil && len(p.gen.ahead) > 0 {
		return
	}
	passed := uint64((time.Since(p.knownAt) + horizonSlack).Milliseconds())
	p.horizon = p.known.ms + min(passed, math.MaxUint64-p.known.ms)
}

// isAhead reports whether a position is beyond the horizon. p.mu is held.
func (g *generation) isAhead(at adapter.Position) bool {
	g.p.moveHorizon()
	return at.Ms > g.p.horizon
}

// hold keeps a message until the clock has been read. p.mu is held.
func (g *generation) hold(m ahead) {
	p := g.p
	if len(g.ahead) >= aheadMessages || g.aheadBytes+len(m.payload) > aheadBytes {
		g.letGo(len(g.ahead))
		g.overflow()
		return
	}
	g.ahead = append(g.ahead, m)
	g.aheadBytes += len(m.payload)
	if !g.verifying {
		g.verifying = true
		p.running.Go(g.verify) // ends when nothing is held, or with the generation
	}
}

// letGo releases the first n held messages. p.mu is held.
func (g *generation) letGo(n int) {
	for _, m := range g.ahead[:n] {
		g.aheadBytes -= len(m.payload)
	}
	g.released += n
	if g.ahead = g.ahead[n:]; len(g.ahead) == 0 {
		g.ahead = nil
	}
}

// verify reads the clock until nothing is held.
func (g *generation) verify() {
	p := g.p
	for g.ctx.Err() == nil {
		p.mu.Lock()
		arrived := g.released + len(g.ahead)
		p.mu.Unlock()
		ctx, cancel := p.bounded(g.ctx)
		seen, err := p.look(ctx, nil)
		cancel()
		if err != nil {
			pause(g.ctx, relinkPause)
			continue
		}
		if g.settle(arrived, seen) {
			return
		}
	}
}

// settle accepts or refuses the held messages among the first ones of the generation, which arrived
// before the clock was read, and later ones that it covers. It reports whether none are left.
func (g *generation) settle(first int, seen *look) bool {
	p := g.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if g.over() || seen.epoch != g.epoch {
		g.letGo(len(g.ahead))
	}
	end := p.end(seen.newest)
	for len(g.ahead) > 0 {
		m := g.ahead[0]
		switch {
		case m.at.Compare(end) <= 0:
			g.accept(m.name, m.at, m.more, m.payload)
		case g.released < first:
			p.stats.ahead.Add(1)
			p.strange.Error("cluster message ahead of the clock", zap.String("channel", m.name),
				zap.String("position", formatPosition(m.at)), zap.String("clock", seen.newest.id()))
		default:
			return false
		}
		g.letGo(1)
	}
	g.verifying = false
	p.moveHorizon()
	return true
}

// repeated is called with a message that is dropped because the feed is past its position. If the
// feed got there through an event that arrived before, and not through a catch-up, then that event
// was ahead of the clock. p.mu is held.
func (g *generation) repeated(at adapter.Position) {
	p := g.p
	if g.flow != passing || at.Compare(g.newest) >= 0 {
		return
	}
	p.stats.ahead.Add(1)
	p.strange.Error("an event was ahead of the clock", zap.String("position", formatPosition(g.newest)), zap.String("clock", formatPosition(at)))
	p.lose("an event was ahead of the clock", place{g.epoch, at})
	p.tail, g.newest = at, adapter.Position{}
	p.trail.swear(g.server.run, at)
}

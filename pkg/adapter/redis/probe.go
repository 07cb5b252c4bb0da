package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

var (
	errDeaf  = errors.New("adapter/redis: probe not received")
	errMoved = errors.New("adapter/redis: primary has moved")
)

// runProbes periodically sends a probe through the clock to the node itself. If one does not
// return, the subscriber's connection is lost, even if TCP reports no error.
func (p *partition) runProbes() {
	tick := time.NewTicker(p.probing)
	defer tick.Stop()
	for n := 1; ; n++ {
		p.probe()
		select {
		case <-tick.C:
			p.compare(n%looks == 0)
		case <-p.kick:
		case <-p.ctx.Done():
			return
		}
	}
}

// looks is the number of probes between two checks of the primary's address. If the former primary
// fails or refuses to write, the check is immediate.
const looks = 5

// probeNow triggers a probe immediately.
func (p *partition) probeNow() {
	signal(p.kick)
}

func (p *partition) probe() {
	ctx, cancel := p.bounded(p.ctx)
	defer cancel()
	p.mu.Lock()
	p.probeSent = time.Now()
	anonymous := p.gen
	if anonymous != nil && (!p.feed.Passing() || anonymous.server.identified) {
		anonymous = nil
	}
	p.mu.Unlock()
	began := time.Now()
	o := p.enqueue(ctx, &content{rooms: []string{probe(p.node)}, payload: []byte{}})
	err := o.err
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil && anonymous != nil && anonymous == p.gen {
		p.count(anonymous, o.receivers)
	}
	if err == nil && p.gen != nil && p.gen.pending == nil && p.probed.Before(began) && p.probeDue.IsZero() {
		p.probeDue = began.Add(2*p.probing - p.probing/4) // before the second probe after this one is sent
	}
	if g := p.gen; g != nil && !p.probeDue.IsZero() && time.Now().After(p.probeDue) {
		g.stop(errDeaf)
	}
}

// count derives from the number of subscribers that a probe reached whether the node's subscriber
// is at the publisher's server, if that does not report its identity: a server counts its own
// subscribers. A server that has never reported a subscriber proves nothing. p.mu is held.
func (p *partition) count(g *generation, receivers int) {
	switch {
	case receivers > 0:
		p.counts = true
	case p.counts:
		g.stop(errOtherServer)
	}
}

// compare checks whether publisher and subscriber use the same server, and, if look is set, whether
// that is the one that takes the writes.
func (p *partition) compare(look bool) {
	l := p.link.Load()
	if l == nil {
		return
	}
	if look && p.moved(l) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gen != nil && p.gen.pending == nil && !p.gen.server.maySame(l.server) {
		p.gen.stop(errOtherServer)
	}
}

// moved closes a link whose server is no longer the primary.
func (p *partition) moved(l *link) bool {
	ctx, cancel := p.bounded(p.ctx)
	defer cancel()
	o, err := p.primary(ctx)
	if err != nil || o.Addr == l.addr {
		return false
	}
	p.log.Warn("primary moved", zap.String("from", l.addr), zap.String("to", o.Addr))
	p.unlink(l, errMoved, time.Now())
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gen != nil {
		p.gen.stop(errMoved)
	}
	return true
}

// catchingUp reports whether the feed is interrupted.
func (p *partition) catchingUp() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.feed.Passing()
}

// ready returns why this node should not get new clients, or nil.
func (p *partition) ready() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch age := time.Since(p.probed); {
	case p.feed.Epoch() == "":
		return errors.New("no history found in Redis yet")
	case !p.downSince.IsZero() && time.Since(p.downSince) > p.probing:
		return fmt.Errorf("no answer from Redis for %v: %w", time.Since(p.downSince).Round(time.Millisecond), p.downCause)
	case p.unusable != nil:
		return p.unusable
	case p.denied != nil:
		return fmt.Errorf("events are refused by Redis: %w", p.denied)
	case p.gen == nil:
		return errors.New("subscriber not connected to Redis")
	case !p.feed.Passing():
		return errors.New("feed is catching up")
	case time.Since(time.Unix(0, p.newer.Load())) < newerFor:
		return adapter.ErrNewerVersion
	case age > 4*p.probing:
		return fmt.Errorf("no probe received for %v", age.Round(time.Millisecond))
	}
	return nil
}

// awaitLive returns once the feed has caught up for the first time.
func (p *partition) awaitLive(ctx context.Context) error {
	for {
		err := p.ready()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w: %w", adapter.ErrUnavailable, err, context.Cause(ctx))
		}
		pause(ctx, 5*time.Millisecond)
	}
}

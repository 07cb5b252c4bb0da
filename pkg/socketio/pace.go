package socketio

import (
	"errors"
	"sync"
	"time"

	"github.com/rejoin-io/rejoin/pkg/session"
)

// A pace bounds the rate of an action: a burst, and after that one per interval. The zero due
// time belongs to a key that has not been used.
type pace struct {
	burst    int
	interval time.Duration
}

const (
	// recoveryInterval is the interval for the recoveries of one session. Each reads and writes the
	// session, whose rooms can make it some hundred kilobytes, and reads a backlog for each room.
	// Stock clients reconnect about once a second at most.
	recoveryInterval = time.Second

	// A recovery counts once for each recoveryBytes that its rooms make a node and Redis exchange,
	// but at most maxRecoveryWeight times. A room costs its name and roomBytes.
	recoveryBytes     = 40 << 10
	maxRecoveryWeight = 10
	roomBytes         = 180

	// maxRecoveryDebt bounds the time that a session waits beyond its burst, because a client
	// must be able to recover before its session expires.
	maxRecoveryDebt = 30 * time.Second

	// connectInterval is the interval for CONNECT packets on one connection. Their burst is one for each
	// namespace that it may be connected to, and connectsAgain. Each costs middlewares and a session,
	// which takes 750 bytes in Redis.
	connectInterval = time.Second
	connectsAgain   = 4
)

// window is the idle time after which the whole burst is free again.
func (p pace) window() time.Duration { return p.times(p.burst) }

// times returns the time that n occurrences count as.
func (p pace) times(n int) time.Duration { return time.Duration(n) * p.interval }

// after returns the due time after one more at the time now, and whether that one is
// within the pace.
func (p pace) after(due, now time.Time) (time.Time, bool) {
	if due.Before(now) {
		due = now
	}
	due = due.Add(p.interval)
	return due, due.Sub(now) <= p.window()
}

// paces keeps a pace for each of many keys. A key without recent use is forgotten.
type paces struct {
	pace pace
	most time.Duration // that a key can owe beyond its burst

	mu          sync.Mutex
	due, former map[string]time.Time // of this period, and of the one before
	began       time.Time            // this period
}

// take takes one, weighted, from the pace of a key, and reports whether it is within the pace. It
// is within if a weight of one is: the rest is a debt.
func (p *paces) take(key string, now time.Time, weight int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	due, ok := p.pace.after(p.get(key, now), now)
	if ok {
		p.set(key, now, due.Add(time.Duration(weight-1)*p.pace.interval))
	}
	return ok
}

// add changes the debt of a key by more. It returns the part of it that exceeds the burst, not
// counting the part that will be given back.
func (p *paces) add(key string, now time.Time, more, back time.Duration) (beyond time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	due := p.get(key, now)
	if more > 0 && due.Before(now) {
		due = now
	}
	burst := p.pace.window() + back
	beyond = min(more, due.Add(more).Sub(now)-burst)
	if left := max(0, burst+p.most-due.Sub(now)); more > left {
		more = left
	}
	p.set(key, now, due.Add(more))
	return beyond
}

// left returns the rest of a key's burst, not counting the part that is taken and will be
// given back.
func (p *paces) left(key string, now time.Time, back time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(0, p.pace.window()+back-max(0, p.get(key, now).Sub(now)))
}

// wait returns the time until one more is within the pace of a key.
func (p *paces) wait(key string, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	due, _ := p.pace.after(p.get(key, now), now)
	return due.Sub(now) - p.pace.window()
}

// get returns the due time of a key. p.mu is held.
func (p *paces) get(key string, now time.Time) time.Time {
	if period := p.pace.window() + p.most; p.due == nil || now.Sub(p.began) >= period {
		p.former = p.due
		if now.Sub(p.began) >= 2*period {
			p.former = nil
		}
		p.due, p.began = make(map[string]time.Time), now
	}
	if due, ok := p.due[key]; ok {
		return due
	}
	return p.former[key]
}

// set sets the due time of a key after get. p.mu is held.
func (p *paces) set(key string, now, due time.Time) {
	delete(p.former, key)
	if !due.After(now) { // the burst is free again
		delete(p.due, key)
		return
	}
	p.due[key] = due
}

// recoveryWeight returns the number of recoveries that one of a session counts as.
func recoveryWeight(s session.Session) int {
	bytes := 0
	for i := range s.Rooms {
		bytes += len(s.Rooms[i].Name) + roomBytes
	}
	return min(1+bytes/recoveryBytes, maxRecoveryWeight)
}

// errTooOften means that a session is not recovered now, but can be a little later.
var errTooOften = errors.New("socketio: session recovered too often")

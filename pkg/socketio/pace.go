package socketio

import (
	"errors"
	"sync"
	"time"

	"github.com/rejoin-io/rejoin/pkg/session"
)

// A pace bounds how often something happens: a burst, and from then on once in an
// interval. The zero value of a due time is that of something that has not happened yet.
type pace struct {
	burst    int
	interval time.Duration
}

const (
	// recoveryInterval is that of the recoveries of one session. Each reads and writes
	// the session, whose rooms can make it some hundred kilobytes, and reads a backlog
	// for each room. Stock clients reconnect about once a second at most.
	recoveryInterval = time.Second

	// A recovery counts once for each recoveryBytes that its rooms make a node and Redis
	// say to each other, but at most maxRecoveryWeight times, so that a client waits for
	// seconds. A room costs its name, and roomBytes beside it.
	recoveryBytes     = 64 << 10
	maxRecoveryWeight = 10
	roomBytes         = 180

	// connectInterval is that of CONNECT packets on one connection, and connectBursts how
	// many of each of its namespaces make a burst. Each costs middlewares and a session.
	connectInterval = time.Second
	connectBursts   = 4
)

// window is after how long without anything the whole burst is free again.
func (p pace) window() time.Duration { return time.Duration(p.burst) * p.interval }

// after returns the due time after one more at the time now, and whether that one is
// within the pace.
func (p pace) after(due, now time.Time) (time.Time, bool) {
	if due.Before(now) {
		due = now
	}
	due = due.Add(p.interval)
	return due, due.Sub(now) <= p.window()
}

// paces keep a pace for each of many keys. A key without anything for two windows is
// forgotten.
type paces struct {
	pace pace

	mu          sync.Mutex
	due, former map[string]time.Time // of this window, and of the one before
	began       time.Time            // this window
}

// free reports whether one more is within the pace of a key.
func (p *paces) free(key string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.pace.after(p.get(key, now), now)
	return ok
}

// recoveryWeight returns as how many a recovery of a session counts.
func recoveryWeight(s session.Session) int {
	bytes := 0
	for i := range s.Rooms {
		bytes += len(s.Rooms[i].Name) + roomBytes
	}
	return min(1+bytes/recoveryBytes, maxRecoveryWeight)
}

// count counts one of a key, as if it were several.
func (p *paces) count(key string, now time.Time, weight int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if due, ok := p.pace.after(p.get(key, now), now); ok {
		p.due[key] = due.Add(time.Duration(weight-1) * p.pace.interval)
	}
}

// get returns the due time of a key. p.mu is held.
func (p *paces) get(key string, now time.Time) time.Time {
	if window := p.pace.window(); p.due == nil || now.Sub(p.began) >= window {
		p.former = p.due
		if now.Sub(p.began) >= 2*window {
			p.former = nil
		}
		p.due, p.began = make(map[string]time.Time), now
	}
	if due, ok := p.due[key]; ok {
		return due
	}
	return p.former[key]
}

// errTooOften: a session is not recovered now, but can be a little later.
var errTooOften = errors.New("socketio: session recovered too often")

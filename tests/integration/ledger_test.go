package integration

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/rejoin-io/rejoin/tests/integration/sioclient"
)

// A ledger records published events. Every publisher numbers its events in each
// room: 0, 1, 2, … After an unknown outcome it continues under another name, so
// an event with an unknown outcome is the last of its name.
type ledger struct {
	mu    sync.Mutex
	rooms map[string]map[string]sequence // by room and publisher
}

// A sequence is the events of one publisher to one room.
type sequence struct {
	started int // events that were sent
	acked   int // of them, those that were acknowledged, the first ones
}

// start notes that an event is sent and returns its number.
func (l *ledger) start(room, publisher string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rooms == nil {
		l.rooms = map[string]map[string]sequence{}
	}
	if l.rooms[room] == nil {
		l.rooms[room] = map[string]sequence{}
	}
	s := l.rooms[room][publisher]
	number := s.started
	s.started++
	l.rooms[room][publisher] = s
	return number
}

// acked notes that the last event was acknowledged.
func (l *ledger) ack(room, publisher string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.rooms[room][publisher]
	s.acked++
	l.rooms[room][publisher] = s
}

// of returns the events sent to a room so far, by publisher.
func (l *ledger) of(room string) map[string]sequence {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.rooms[room])
}

// acknowledged returns how many events were acknowledged up to now.
func (l *ledger) acknowledged() (total int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, room := range l.rooms {
		for _, s := range room {
			total += s.acked
		}
	}
	return total
}

// A publisher sends numbered events to its rooms in turn, one after another,
// through whichever node it is connected to.
type publisher struct {
	name   string
	ledger *ledger
	node   func() (addr string)
	rooms  []string
	pause  time.Duration // between two events; 0 is as fast as they are acknowledged
	most   int           // events; 0 is no limit
	more   []any         // arguments, after those of the ledger
	stays  bool          // connected, though an event has failed
	auth   func() map[string]any

	life        int // of its name
	sent, acked int
	failed      map[string]int // by error
}

// run publishes until the context ends.
func (p *publisher) run(ctx context.Context) {
	client := sioclient.New(sioclient.Options{Auth: p.auth})
	defer client.Cut()
	p.failed = map[string]int{}
	tick := time.NewTicker(max(p.pause, time.Microsecond))
	defer tick.Stop()
	for i := 0; p.most == 0 || i < p.most; i++ {
		if p.pause > 0 {
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
		for !client.Connected() && ctx.Err() == nil {
			client.Roam(wsURL(p.node()))
			if err := bounded(ctx, client.Connect); err != nil {
				wait(ctx, 20*time.Millisecond)
			}
		}
		if ctx.Err() != nil {
			return
		}
		room, name := p.rooms[i%len(p.rooms)], fmt.Sprintf("%s.%d", p.name, p.life)
		args := append([]any{room, "n", name, room, p.ledger.start(room, name)}, p.more...)
		p.sent++
		err := bounded(context.WithoutCancel(ctx), func(ctx context.Context) error {
			_, err := call(ctx, client, "to", args...)
			return err
		})
		if err != nil {
			p.failed[err.Error()]++
			p.life++
			if !p.stays {
				client.Cut() // packets still in flight there belong to the former connection
			}
			continue
		}
		p.acked++
		p.ledger.ack(room, name)
	}
}

// bounded gives something as long as patience lasts.
func bounded(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return f(ctx)
}

// wait lets some time pass, unless the context ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// Continuity: several publishers send events to several rooms, and members join, leave, are
// cut and reconnect on any node, while random faults are injected. Each member gets every
// event that is for it, once and in order, unless a loss is reported to it; and no loss is
// reported that Redis has not suffered. REJOIN_CHAOS=10m makes it longer.
func TestContinuity(t *testing.T) {
	t.Run("NothingIsLost", func(t *testing.T) { continuity(t, false) })
	t.Run("HistoryIsLost", func(t *testing.T) { continuity(t, true) })
	t.Run("NothingIsLostWithoutKills", func(t *testing.T) { continuity(t, false, withoutKills...) })
	t.Run("HistoryIsLostWithoutKills", func(t *testing.T) { continuity(t, true, withoutKills...) })
}

// withoutKills gives nodes a server that behaves like ways["Anonymous"] for them, while the
// test can still break connections.
var withoutKills = []string{
	"user default on nopass ~* &* +@all -client|kill -client|id -role -info",
	"user tester on nopass ~* &* +@all",
}

const chaosNodes, chaosPublishers, chaosMembers, chaosRooms = 3, 4, 12, 6

// A world is one run.
type world struct {
	t        *testing.T
	server   *redistest.Server
	user     string // user that may break connections; "" is the default user
	stations []*station
	rooms    []rooms.Room

	mu     sync.Mutex
	sent   map[string]*sending
	losses []uint64 // when Redis lost data, in milliseconds: earlier data was kept

	heard, recoveries atomic.Int64 // of all members
}

// enough reports whether enough has happened to make the test meaningful.
func (w *world) enough() bool {
	return w.recoveries.Load() >= 5*chaosMembers && w.heard.Load() >= 10*chaosMembers
}

// sending is the outcome of publishing an event.
type sending struct {
	adapter.Event       // its cursor is zero if unknown
	outcome       error // nil: acknowledged
}

func continuity(t *testing.T, lossy bool, config ...string) {
	duration := 3 * time.Second
	if s := os.Getenv("REJOIN_CHAOS"); s != "" {
		var err error
		if duration, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := &world{t: t, server: redistest.Start(t, config...), sent: make(map[string]*sending)}
	if len(config) > 0 {
		w.user = "tester"
	}
	for i := range chaosRooms {
		w.rooms = append(w.rooms, room(fmt.Sprint("r", i)))
	}
	for i := range chaosNodes {
		r := newRelay(t, w.server.Addr)
		o := Options{BacklogLimit: 1_000_000, Timeout: time.Second, ProbeInterval: 150 * time.Millisecond}
		if !testing.Verbose() {
			o.Logger = silent
		}
		w.stations = append(w.stations, &station{
			Adapter: start(t, r.url(), adapter.NodeID(fmt.Sprint("n", i)), o), relay: r, members: make(map[*roamer]struct{}),
		})
	}
	reading, stopReading := context.WithCancel(t.Context())
	running, stop := context.WithTimeout(t.Context(), max(duration, patience))
	defer stop()
	var readers, publishers, members sync.WaitGroup
	for _, s := range w.stations {
		readers.Go(func() { s.read(reading, t) })
	}
	for p := range chaosPublishers {
		rng := rand.New(rand.NewPCG(seed, uint64(p)))
		publishers.Go(func() { w.publish(running, p, rng) })
	}
	var all []*roamer
	for i := range chaosMembers {
		m := &roamer{world: w, rng: rand.New(rand.NewPCG(seed, uint64(100+i)))}
		all = append(all, m)
		members.Go(func() {
			for running.Err() == nil {
				m.live(running)
			}
		})
	}
	w.faults(running, time.Now().Add(duration), rand.New(rand.NewPCG(seed, 1000)), lossy)
	stop()
	publishers.Wait()
	members.Wait()
	for _, s := range w.stations {
		eventually(t, "all nodes are well again", func() bool { return s.Ready() == nil })
	}
	for _, m := range all {
		m.finish(deadline(t))
	}
	stopReading()
	readers.Wait()
	w.judge(all, lossy)
}

// publish sends numbered events.
func (w *world) publish(ctx context.Context, p int, rng *rand.Rand) {
	s := w.stations[p%len(w.stations)]
	for n := 1; ctx.Err() == nil; n++ {
		var to []rooms.Room
		for _, i := range rng.Perm(len(w.rooms))[:1+rng.IntN(3)] {
			to = append(to, w.rooms[i])
		}
		e := event(fmt.Sprint(p, " ", n), to...)
		e.Stored = rng.IntN(5) > 0
		sent := &sending{Event: e, outcome: adapter.ErrUnavailable}
		w.mu.Lock()
		w.sent[string(e.Data)] = sent
		w.mu.Unlock()
		r, err := s.Publish(w.t.Context(), e)
		w.mu.Lock()
		sent.Cursor, sent.outcome = r.Cursor, err
		w.mu.Unlock()
		pause(ctx, time.Duration(rng.IntN(3000))*time.Microsecond)
	}
}

// faults injects faults up to a time, on a busy machine until there were enough, and then
// ends all of them.
func (w *world) faults(ctx context.Context, until time.Time, rng *rand.Rand, lossy bool) {
	redis := w.server.Client()
	if w.user != "" {
		redis = goredis.NewClient(&goredis.Options{Addr: w.server.Addr, Username: w.user, Password: "any", Protocol: 2, MaxRetries: 5})
		defer func() { _ = redis.Close() }()
	}
	var mending sync.WaitGroup
	defer mending.Wait()
	for ctx.Err() == nil && (time.Now().Before(until) || !w.enough()) {
		pause(ctx, time.Duration(20+rng.IntN(150))*time.Millisecond)
		relay := w.stations[rng.IntN(len(w.stations))].relay
		later := func(f func()) {
			d := time.Duration(50+rng.IntN(600)) * time.Millisecond
			mending.Go(func() { pause(ctx, d); f() })
		}
		var err error
		switch rng.IntN(10) {
		case 0:
			err = redis.Do(w.t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err()
		case 1:
			err = redis.Do(w.t.Context(), "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Err()
		case 2:
			err = redis.ScriptFlush(w.t.Context()).Err()
		case 3:
			relay.cut(subscriber)
		case 4:
			relay.cut(publisher)
		case 5:
			relay.cut(unknown, publisher, subscriber)
		case 6:
			later(relay.hole([]role{publisher, subscriber}[rng.IntN(2)]))
		case 7:
			relay.slow(time.Duration(rng.IntN(100)) * time.Millisecond)
			later(func() { relay.slow(0) })
		case 8:
			w.server.Pause()
			pause(ctx, time.Duration(rng.IntN(300))*time.Millisecond)
			w.server.Resume()
		case 9:
			if !lossy {
				continue
			}
			w.mu.Lock()
			w.losses = append(w.losses, uint64(time.Now().UnixMilli()))
			w.mu.Unlock()
			if rng.IntN(2) == 0 {
				err = redis.FlushAll(w.t.Context()).Err()
				break
			}
			if err = redis.Save(w.t.Context()).Err(); err == nil {
				pause(ctx, time.Duration(rng.IntN(200))*time.Millisecond)
				w.server.Restart()
			}
			pause(ctx, time.Duration(rng.IntN(1000))*time.Millisecond)
		}
		if err != nil {
			w.t.Errorf("fault: %v", err)
		}
	}
}

// judge compares the events that members got with those that were sent.
func (w *world) judge(members []*roamer, lossy bool) {
	told := 0
	for i, m := range members {
		for _, s := range m.stints {
			if s.lost != nil {
				told++
				if !lossy {
					w.t.Errorf("member %d was told of a loss: %v", i, s.lost)
				}
			}
			if err := w.verdict(s); err != nil {
				w.t.Errorf("member %d: %v\njoined %v\n%s", i, err, s.joined, s.log)
			}
		}
	}
	w.t.Logf("%d events sent, %d received, %d recoveries, told %d times of %d losses", len(w.sent), w.heard.Load(), w.recoveries.Load(), told, len(w.losses))
	if !w.enough() {
		w.t.Error("that is too little to prove anything")
	}
}

// verdict checks one stint of a member: from a first join up to a loss, or the end.
func (w *world) verdict(s *stint) error {
	got := make(map[string]bool)
	numbers := make(map[int]int)
	last := adapter.Position{}
	for _, e := range s.got {
		sent := w.sent[string(e.Data)]
		var p, n int
		if _, err := fmt.Sscan(string(e.Data), &p, &n); err != nil || sent == nil {
			return fmt.Errorf("%q was never sent", e.Data)
		}
		switch {
		case e.Position.Compare(last) <= 0 || n <= numbers[p]:
			return fmt.Errorf("%q at %v comes after %v and number %d", e.Data, e.Position, last, numbers[p])
		case sent.outcome != nil && !errors.Is(sent.outcome, adapter.ErrUnavailable):
			return fmt.Errorf("%q came, and its publisher was told: %v", e.Data, sent.outcome)
		case sent.outcome == nil && sent.Cursor.At != e.Position:
			return fmt.Errorf("%q came at %v, and its publisher was told %v", e.Data, e.Position, sent.Cursor)
		case !s.wants(e.Target, e.Position):
			return fmt.Errorf("%q at %v is not for it", e.Data, e.Position)
		}
		got[string(e.Data)], last, numbers[p] = true, e.Position, n
	}
	// A member that got a loss may have missed events sent since the loss happened.
	horizon := adapter.Position{Ms: 1 << 60}
	if s.lost != nil {
		for _, at := range w.losses {
			if at < horizon.Ms && at >= s.began {
				horizon.Ms = at
			}
		}
	}
	for data, sent := range w.sent {
		at := sent.Cursor.At
		if sent.outcome == nil && sent.Stored && !got[data] && sent.Cursor.SameHistory(s.seen) && s.seen.Covers(at) &&
			at.Compare(horizon) < 0 && s.wants(sent.Target, at) {
			return fmt.Errorf("%q at %v did not come; it has seen up to %v", data, at, s.seen)
		}
	}
	return nil
}

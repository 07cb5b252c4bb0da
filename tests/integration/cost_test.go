package integration

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestRecoveryCommands is TestRecoveryCost in counts: the commands that Redis
// executes for some recoveries, and the bytes that it sends, do not depend on the
// number of events in other rooms meanwhile.
func TestRecoveryCommands(t *testing.T) {
	t.Parallel()
	const clients, rooms, missed, others = 20, 3, 5, 3000
	s := &scale{t: t, ctx: t.Context(), c: startCluster(t, 2)}
	in := func(i int) (names []string) {
		for r := range rooms {
			names = append(names, fmt.Sprint("room ", (i+r)%clients))
		}
		return names
	}
	for range clients {
		l := listen(s.c.nodes[0].node)
		defer l.Cut()
		s.listeners = append(s.listeners, l)
	}
	each(t, clients, func(i int) error {
		if err := s.listeners[i].Connect(s.ctx); err != nil {
			return err
		}
		_, err := call(s.ctx, s.listeners[i].Client, "join", in(i))
		return err
	})
	second := s.c.nodes[1]
	heard := func() float64 { return sum(second.metrics(), "rejoin_redis_subscriptions") }
	alone := heard()
	cost := func(others int) work {
		s.cut()
		// However long the events take, the node has to subscribe everything anew.
		eventually(t, "rooms without members are still heard", func() error {
			if n := heard(); n > alone {
				return fmt.Errorf("%v rooms, of which %v are the node's own", n, alone)
			}
			return nil
		})
		for range missed {
			s.publish(clients, "room ", 1)
		}
		next := s.next
		s.publish(100, "other room ", others/100)
		s.next = next
		before := s.work()
		for i, l := range s.listeners {
			l.Roam(wsURL(second.public))
			if err := l.Connect(s.ctx); err != nil || !l.Recovered() {
				t.Fatalf("client %d: recovered %v: %v", i, l.Recovered(), err)
			}
			if _, err := l.all(s.ctx, s.next-1); err != nil {
				t.Fatalf("client %d: %v", i, err)
			}
		}
		return s.work().since(before)
	}
	cost(0) // scripts are loaded
	quiet, busy := cost(0), cost(others)
	t.Logf("%d recoveries with %d missed events each\nin a quiet cluster: %v\nafter %d events in other rooms: %v", clients, rooms*missed, quiet, others, busy)
	// What nodes do by the clock comes on top: probes, and the refresh of each session.
	for _, name := range slices.Sorted(maps.Keys(busy.calls)) {
		if most := quiet.calls[name] + clients + int(10*busy.took.Seconds()); busy.calls[name] > most {
			t.Errorf("%s: %d calls, and %d after events in other rooms", name, quiet.calls[name], busy.calls[name])
		}
	}
	if most := quiet.bytes + quiet.bytes/5 + int(20_000*busy.took.Seconds()); busy.bytes > most {
		t.Errorf("%d bytes, and %d after events in other rooms", quiet.bytes, busy.bytes)
	}
	if quiet.calls["xrange"] < clients {
		t.Errorf("%d recoveries have read backlogs %d times only", clients, quiet.calls["xrange"])
	}
}

// work is a count of Redis' commands and bytes since its start, or since an
// earlier one.
type work struct {
	at    time.Time
	took  time.Duration
	calls map[string]int // by command
	bytes int            // sent
}

func (s *scale) work() work {
	s.t.Helper()
	w := work{at: time.Now(), calls: map[string]int{}}
	info, err := s.c.redis.Client().Info(s.ctx, "stats", "commandstats").Result()
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if command, ok := strings.CutPrefix(name, "cmdstat_"); ok {
			calls, _, _ := strings.Cut(strings.TrimPrefix(value, "calls="), ",")
			w.calls[command], err = strconv.Atoi(calls)
		} else if name == "total_net_output_bytes" {
			w.bytes, err = strconv.Atoi(value)
		}
		if err != nil {
			s.t.Fatalf("INFO: got %q: %v", line, err)
		}
	}
	return w
}

func (w work) since(before work) work {
	w.took = w.at.Sub(before.at)
	w.bytes -= before.bytes
	for command := range w.calls {
		if w.calls[command] -= before.calls[command]; w.calls[command] == 0 {
			delete(w.calls, command)
		}
	}
	return w
}

func (w work) String() string {
	return fmt.Sprintf("%d bytes in %v, %v", w.bytes, w.took.Round(time.Millisecond), w.calls)
}

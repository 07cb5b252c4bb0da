package integration

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/tests/integration/sioclient"
)

// TestRecoveryAtScale: 500 clients in 100 rooms, in make test 250 in 50, lose their connections and
// miss 20 events each. All of them reconnect as the same sockets to another node and get the missed
// events.
func TestRecoveryAtScale(t *testing.T) {
	for name, lose := range map[string]func(s *scale){
		"cut":         (*scale).cut,
		"node killed": func(s *scale) { s.c.nodes[0].kill(); s.cut() },
		"half-open":   (*scale).vanish,
	} {
		t.Run(name, func(t *testing.T) {
			s := newScale(t)
			lose(s)
			s.publish(scaleRooms, "room ", scaleMissed)
			s.recover()
		})
	}
}

// TestRecoveryCost: the cost of the recoveries of TestRecoveryAtScale does not depend
// on events in other rooms, twice as many as the clients miss.
func TestRecoveryCost(t *testing.T) {
	s := newScale(t)
	cost := func(others int) time.Duration {
		s.cut()
		s.publish(scaleRooms, "room ", scaleMissed)
		next := s.next
		s.publish(100, "other room ", others/100)
		s.next = next
		return s.recover()
	}
	before, meanwhile, after := cost(0), cost(scaleOthers), cost(0)
	t.Logf("CPU of %d recoveries, with the race detector: %v, with %d events in other rooms %v, without %v", scaleClients, before, scaleOthers, meanwhile, after)
	if alone := max(before, after); meanwhile > alone*3/2 {
		t.Errorf("%v of CPU, and %v if events pass in other rooms", alone, meanwhile)
	}
}

const scaleMissed = 20 // events in each room

var (
	scaleRooms   = int(lasting(100, 50))
	scaleClients = 5 * scaleRooms
	scaleOthers  = 2 * scaleMissed * scaleClients
)

// A scale is the cluster of TestRecoveryAtScale, with all its clients on the
// first node; each has got one event.
type scale struct {
	t         *testing.T
	ctx       context.Context
	c         *cluster
	listeners []*listener
	ids       []string
	next      int // number to be published
}

func newScale(t *testing.T) *scale {
	ctx, cancel := context.WithTimeout(t.Context(), 6*patience)
	s := &scale{t: t, ctx: ctx, c: startCluster(t, 2), listeners: make([]*listener, scaleClients), ids: make([]string, scaleClients)}
	t.Cleanup(func() {
		cancel()
		for _, l := range s.listeners {
			l.Cut()
		}
	})
	for i := range s.listeners {
		s.listeners[i] = listen(s.c.nodes[0].node)
	}
	each(t, scaleClients, func(i int) error {
		if err := s.listeners[i].Connect(ctx); err != nil {
			return err
		}
		s.ids[i] = s.listeners[i].ID()
		_, err := call(ctx, s.listeners[i].Client, "join", fmt.Sprint("room ", i%scaleRooms))
		return err
	})
	s.publish(scaleRooms, "room ", 1)
	s.heard()
	return s
}

// publish sends so many numbered events to each of some rooms, through the
// second node.
func (s *scale) publish(rooms int, prefix string, events int) {
	s.t.Helper()
	publishers := make(chan *listener, 32)
	for range cap(publishers) {
		l := listen(s.c.nodes[1].node)
		if err := l.Connect(s.ctx); err != nil {
			s.t.Fatal(err)
		}
		defer l.Cut()
		publishers <- l
	}
	each(s.t, rooms, func(room int) error {
		l := <-publishers
		defer func() { publishers <- l }()
		for i := range events {
			if _, err := call(s.ctx, l.Client, "to", fmt.Sprint(prefix, room), "n", s.next+i); err != nil {
				return err
			}
		}
		return nil
	})
	s.next += events
}

func (s *scale) cut() { s.atOnce((*sioclient.Client).Cut) }

func (s *scale) vanish() { s.atOnce((*sioclient.Client).Vanish) }

func (s *scale) atOnce(do func(*sioclient.Client)) {
	var all sync.WaitGroup
	for _, l := range s.listeners {
		all.Go(func() { do(l.Client) })
	}
	all.Wait()
}

// heard waits until all clients have got all events, and no others.
func (s *scale) heard() {
	s.t.Helper()
	each(s.t, scaleClients, func(i int) error {
		heard, err := s.listeners[i].all(s.ctx, s.next-1)
		if err == nil && !slices.Equal(heard, numbers(0, s.next)) {
			err = fmt.Errorf("got %v", heard)
		}
		return err
	})
}

// recover reconnects all clients, to the second node, and returns the cost for the
// node and Redis.
func (s *scale) recover() (cpu time.Duration) {
	s.t.Helper()
	began, used := time.Now(), s.cpu()
	each(s.t, scaleClients, func(i int) error {
		l := s.listeners[i]
		l.Roam(wsURL(s.c.nodes[1].public))
		if err := l.Connect(s.ctx); err != nil {
			return err
		}
		if !l.Recovered() || l.ID() != s.ids[i] {
			return fmt.Errorf("not recovered, or with the id %s, not %s", l.ID(), s.ids[i])
		}
		return nil
	})
	s.heard()
	used = s.cpu() - used
	s.t.Logf("%d clients recovered in %v", scaleClients, time.Since(began))
	s.publish(scaleRooms, "room ", 1)
	s.heard()
	return used
}

// cpu returns the CPU time of the second node and Redis.
func (s *scale) cpu() time.Duration {
	s.t.Helper()
	total := time.Duration(0)
	for _, pid := range []int{s.c.nodes[1].process.Pid, s.c.redis.Pid()} {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			s.t.Fatal(err)
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')'):]))
		for _, ticks := range fields[12:14] { // user and system time
			n, err := strconv.Atoi(ticks)
			if err != nil {
				s.t.Fatal(err)
			}
			total += time.Duration(n) * time.Second / 100
		}
	}
	return total
}

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/tests/integration/sioclient"
)

// TestJoinWithHistory: publishers number their events and publish them without pause, while stock
// clients join their rooms with the last events, leave, are cut, and lose their nodes. For each
// client the history in the ack of a join and the events that follow it have no gap and no repeat.
func TestJoinWithHistory(t *testing.T) {
	t.Run("Redis", func(t *testing.T) {
		t.Parallel()
		joinWithHistory(t, startCluster(t, 3, unlimited...))
	})
	t.Run("Redis Cluster", func(t *testing.T) {
		t.Parallel()
		joinWithHistory(t, startOver(t, redistest.StartCluster(t).URL(), 3, append(unlimited, "REJOIN_PARTITIONS=3")...))
	})
}

// unlimited are variables without the rates that the publishers and joins exceed.
var unlimited = []string{"REJOIN_SOCKET_EVENT_RATE=0", "REJOIN_USER_EVENT_RATE=0", "REJOIN_READ_RATE=0", "REJOIN_COPY_RATE=0"}

// rewound is how many events a join requests: more than one room's publisher may fail to publish.
const rewound = 20

func joinWithHistory(t *testing.T, c *cluster) {
	rooms := []string{"one", "two", "three", "four", "five"} // in all partitions
	front := startBalancer(t, c)
	over, stop := context.WithCancel(t.Context())
	defer stop()
	var publishers []*numberer
	var publishing sync.WaitGroup
	defer publishing.Wait()
	defer stop()
	for _, room := range rooms {
		p := startNumberer(t, c.nodes[2].public, room)
		publishers = append(publishers, p)
		publishing.Go(func() { p.publish(over) })
	}
	eventually(t, "no history", func() error {
		for _, p := range publishers {
			if n := p.newest.Load(); n < 2*rewound {
				return fmt.Errorf("%d events in %s", n, p.room)
			}
		}
		return nil
	})

	d := startDriver(t)
	var clients []*npmSocket
	for i, options := range []string{"websocket", "websocket", "polling", "websocket", "polling", "websocket"} {
		s := d.open(fmt.Sprint("client ", i), newest, front.URL, transports[options])
		s.must("rewinder", map[string]any{"rooms": rooms, "last": rewound, "stay": 300})
		clients = append(clients, s)
	}
	for end := time.Now().Add(lasting(chaos(t), 5*time.Second)); time.Now().Before(end); {
		wait(over, 100*time.Millisecond)
		if rand.N(8) == 0 {
			n := c.nodes[rand.N(2)]
			n.kill()
			n.restart()
			continue
		}
		clients[rand.N(len(clients))].must("cut", nil)
	}
	stop()
	publishing.Wait()
	joins, lived := 0, 0
	for _, s := range clients {
		r := &rewinder{npmSocket: s, publishers: publishers}
		r.check(t)
		joins, lived = joins+r.joins, lived+r.lived
	}
	t.Logf("%d joins with history, %d events after them", joins, lived)
	if joins < 10*len(clients) || lived < 1000 {
		t.Errorf("%d joins and %d events, want more", joins, lived)
	}
}

// A numberer publishes numbered events to a room, one after another.
type numberer struct {
	room    string
	client  *sioclient.Client
	newest  atomic.Int64
	unknown map[int]bool // it is not known whether they were published
}

func startNumberer(t *testing.T, addr, room string) *numberer {
	t.Helper()
	p := &numberer{room: room, client: sioclient.New(sioclient.Options{URL: wsURL(addr)}), unknown: map[int]bool{}}
	t.Cleanup(p.client.Cut)
	if err := bounded(t.Context(), p.client.Connect); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *numberer) publish(ctx context.Context) {
	for n := 1; ctx.Err() == nil; n++ {
		during, cancel := context.WithTimeout(context.Background(), patience)
		answer, err := p.client.Ask(during, "to", p.room, "n", p.room, n)
		cancel()
		var r reply
		if err != nil || len(answer) != 1 || json.Unmarshal(answer[0], &r) != nil || !r.OK {
			p.unknown[n] = true
			continue
		}
		p.newest.Store(int64(n))
	}
}

// A rewinder checks what a stock client was given.
type rewinder struct {
	*npmSocket
	publishers []*numberer
	next       map[string]int // by room, the number that comes next; nil while the client is in none
	unsure     bool           // the latest events may come once more
	joins      int
	lived      int
	log        []string
}

// check reads the client's reports until it has all events.
func (r *rewinder) check(t *testing.T) {
	t.Helper()
	for !r.complete() {
		next, err := r.reports.Next(patience)
		if err != nil {
			t.Errorf("%s misses the last events: has %v: %v", r.name, r.next, err)
			return
		}
		if problem := r.take(next); problem != "" {
			t.Errorf("%s: %s\n%s", r.name, problem, fmt.Sprintln(r.log[max(0, len(r.log)-30):]))
			return
		}
	}
}

func (r *rewinder) complete() bool {
	return r.next != nil && !slices.ContainsFunc(r.publishers, func(p *numberer) bool {
		return r.next[p.room] <= int(p.newest.Load())
	})
}

// take processes a report and returns what is wrong with it.
func (r *rewinder) take(next report) (problem string) {
	switch next.Report {
	case "connect":
		r.note("connect, recovered %v", next.Recovered)
		if !next.Recovered {
			r.next = nil
		}
	case "left":
		r.note("left")
		r.next = nil
	case "rewound":
		return r.rewind(next)
	case "event":
		if r.next == nil {
			return ""
		}
		r.lived++
		return r.number(next.Args, r.unsure)
	}
	return ""
}

// rewind processes the ack of a join.
func (r *rewinder) rewind(next report) (problem string) {
	var ack struct {
		Joined  string
		History map[string]struct {
			Events []historical
			More   bool
		}
	}
	if err := json.Unmarshal(next.Args[0], &ack); err != nil {
		return err.Error()
	}
	r.joins++
	r.next, r.unsure = map[string]int{}, next.Unsure
	for _, p := range r.publishers {
		h := ack.History[p.room]
		if len(h.Events) != rewound || !h.More {
			return fmt.Sprintf("joined %s with %d events, more %v; want %d", p.room, len(h.Events), h.More, rewound)
		}
		for _, e := range h.Events {
			if problem := r.number(e.Args, false); problem != "" {
				return "in the history: " + problem
			}
		}
	}
	r.note("joined at %s, unsure %v, next %v", ack.Joined, next.Unsure, r.next)
	return ""
}

// number processes the arguments of an event.
func (r *rewinder) number(args []json.RawMessage, again bool) (problem string) {
	var room string
	var n int
	if json.Unmarshal(args[0], &room) != nil || json.Unmarshal(args[1], &n) != nil {
		return fmt.Sprintf("event %s", args)
	}
	want, known := r.next[room]
	switch {
	case known && n < want && again:
		return ""
	case known && n < want:
		return fmt.Sprintf("%s: %d came again, want %d", room, n, want)
	}
	for ; known && want < n; want++ {
		i := slices.IndexFunc(r.publishers, func(p *numberer) bool { return p.room == room })
		if !r.publishers[i].unknown[want] {
			return fmt.Sprintf("%s: %d is missing, got %d", room, want, n)
		}
	}
	r.next[room] = n + 1
	return ""
}

func (r *rewinder) note(format string, args ...any) {
	r.log = append(r.log, fmt.Sprintf(format, args...)+"\n")
}

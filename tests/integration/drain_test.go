package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/app"
	"github.com/rejoin-io/rejoin/internal/auth"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/session"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// crowd opens clients, on each transport the same number.
func (n *node) crowd(each int) []*npmSocket {
	n.t.Helper()
	d := startDriver(n.t)
	var clients []*npmSocket
	for name, options := range transports {
		for i := range each {
			s := d.open(fmt.Sprint(name, i), versions[i%len(versions)], n.url(), options)
			if name == "upgrade" {
				s.awaitUpgrade()
			}
			clients = append(clients, s)
		}
	}
	return clients
}

// readiness returns the node's own status.
func (n *node) readiness() (status int, said struct {
	Status      string
	Connections *int
}, err error) {
	response, err := internalHTTP.Get("http://" + n.internal + "/readyz")
	if err != nil {
		return 0, said, err
	}
	defer response.Body.Close()
	return response.StatusCode, said, json.NewDecoder(response.Body).Decode(&said)
}

// handshake returns the status that a new polling client gets.
func (n *node) handshake() (int, error) {
	response, err := internalHTTP.Get(n.url() + "/socket.io/?EIO=4&transport=polling")
	if err != nil {
		return 0, err
	}
	response.Body.Close()
	return response.StatusCode, nil
}

// TestDrain: on SIGTERM a node reports that it is not ready and continues to
// serve; then it refuses new clients and closes its connections one by one, so
// that stock clients reconnect, and ends with status 0 in time.
func TestDrain(t *testing.T) {
	t.Parallel()
	const delay, budget = 3 * time.Second, 8 * time.Second
	n := startNode(t, "REJOIN_DRAIN_DELAY="+delay.String(), "REJOIN_DRAIN_BUDGET="+budget.String())
	clients := n.crowd(8)

	started := time.Now()
	n.signal(syscall.SIGTERM)
	eventually(t, "the node is ready", func() error {
		status, said, err := n.readiness()
		if err == nil && (status != 503 || said.Status != "draining" || said.Connections == nil || *said.Connections != len(clients)) {
			err = fmt.Errorf("%d %+v", status, said)
		}
		return err
	})
	for _, s := range clients {
		s.call("join", "lobby")
	}
	if status, err := n.handshake(); time.Since(started) < delay && (status != 200 || err != nil) {
		t.Errorf("a client that comes before the balancer has noticed: %d, %v", status, err)
	}
	clients[0].call("all", "still served")
	eventually(t, "the node closes no connections", func() error {
		if !n.log.Contains("closing the connections") {
			return errors.New("no word of it")
		}
		return nil
	})
	eventually(t, "new clients are not refused", func() error {
		status, err := n.handshake()
		if err == nil && status != 503 {
			err = fmt.Errorf("status %d", status)
		}
		return err
	})

	var mu sync.Mutex
	var closed []time.Time
	var gone sync.WaitGroup
	for _, s := range clients {
		gone.Go(func() {
			s.hears("still served")
			if r := s.await("disconnect"); r.Reason != "transport close" {
				t.Errorf("%s is disconnected by %q", s.name, r.Reason)
			}
			mu.Lock()
			closed = append(closed, time.Now())
			mu.Unlock()
			s.await("connect_error") // it tries to reconnect
		})
	}
	gone.Wait()
	n.awaitEnd()
	if took := time.Since(started); took < delay+budget/2 || took > delay+budget+10*time.Second {
		t.Errorf("the node took %v to end", took)
	}
	slices.SortFunc(closed, time.Time.Compare)
	// They are to be spread over six seconds. A busy machine bunches them.
	if all := closed[len(closed)-1].Sub(closed[0]); all < 3*time.Second {
		t.Errorf("all connections are closed within %v", all)
	}
	for i := range closed[len(closed)/2:] {
		if half := closed[i+len(closed)/2].Sub(closed[i]); half < time.Second {
			t.Errorf("half of the connections are closed within %v", half)
		}
	}
	if !n.log.Contains(`"connections":0}`) {
		t.Errorf("some connections were not closed by the drain:\n%s", n.log)
	}
}

// TestStopImmediately: SIGINT does not wait, nor does a second signal.
func TestStopImmediately(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		signals  []syscall.Signal
		variable string // longer than the test
	}{
		"interrupted":                  {[]syscall.Signal{syscall.SIGINT}, "REJOIN_DRAIN_DELAY=10m"},
		"terminated twice":             {[]syscall.Signal{syscall.SIGTERM, syscall.SIGTERM}, "REJOIN_DRAIN_DELAY=10m"},
		"interrupted while it drains":  {[]syscall.Signal{syscall.SIGTERM, syscall.SIGINT}, "REJOIN_DRAIN_BUDGET=1h"},
		"nobody is there to be closed": {[]syscall.Signal{syscall.SIGTERM}, "REJOIN_DRAIN_BUDGET=1h"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, test.variable)
			var clients []*npmSocket
			if !strings.HasPrefix(name, "nobody") {
				clients = n.crowd(1)
			}
			for i, s := range test.signals {
				if i > 0 {
					eventually(t, "the node does not drain", func() error {
						if !n.log.Contains("draining") {
							return errors.New("no word of it")
						}
						return nil
					})
				}
				n.signal(s)
			}
			for _, s := range clients {
				r := s.await("disconnect")
				// A polling client that is between two requests finds no node for the next one.
				between := strings.HasPrefix(s.name, "polling") && r.Reason == "transport error"
				if r.Reason != "transport close" && !between {
					t.Errorf("%s is disconnected by %q", s.name, r.Reason)
				}
			}
			n.awaitEnd()
		})
	}
}

// A front sends the requests of a session to the node that has it, and new
// clients to one node, and after its move to the other.
type front struct {
	nodes map[string]*socketio.Server // by the beginning of their session ids
	newer atomic.Pointer[socketio.Server]
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	sid := r.URL.Query().Get("sid")
	if n := f.nodes[sid[:min(4, len(sid))]]; n != nil {
		n.ServeHTTP(w, r)
		return
	}
	f.newer.Load().ServeHTTP(w, r)
}

// startPair starts two servers of the library with the built-in application, whose
// session ids begin with aaaa and bbbb, and returns the cluster that they make.
func startPair(t *testing.T) (a, b *socketio.Server, cluster *adapter.Memory) {
	t.Helper()
	cluster, sessions := adapter.NewMemory(adapter.MemoryOptions{BacklogLimit: 100_000}), session.NewMemory()
	start := func(id string) *socketio.Server {
		link, err := cluster.Node(adapter.NodeID(id))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { link.Close() })
		srv, err := socketio.NewServer(socketio.Options{Adapter: link, Sessions: sessions, Engine: engineio.Options{NodeID: id}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeServer(t, srv) })
		app.New(app.Options{Anonymous: auth.Everything()}).Register(srv.Namespace)
		return srv
	}
	return start("aaaa"), start("bbbb"), cluster
}

// TestDrainLosesNothing: while a node drains under load, its clients get every
// event once and in order as they move to another node, and the events that
// some of them send arrive once.
func TestDrainLosesNothing(t *testing.T) {
	t.Parallel()
	a, b, _ := startPair(t)
	f := &front{nodes: map[string]*socketio.Server{"aaaa": a, "bbbb": b}}
	f.newer.Store(a)
	web := httptest.NewServer(f)
	defer web.Close()
	defer closeServer(t, b) // which answers the last polls

	d := startDriver(t)
	var listeners []*npmSocket
	before := map[*npmSocket]state{}
	for name, options := range transports {
		for i := range 3 {
			s := d.open(fmt.Sprint(name, i), newest, web.URL, options)
			s.call("join", "room")
			listeners = append(listeners, s)
			before[s] = s.state()
		}
	}
	senders := map[*npmSocket]*atomic.Int64{} // and their sent events
	for name, options := range transports {
		options = maps.Clone(options)
		options["retries"], options["ackTimeout"] = 20, 5000
		senders[d.open("sender by "+name, newest, web.URL, options)] = new(atomic.Int64)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var sending sync.WaitGroup
	var published atomic.Int64
	publish := func(count *atomic.Int64, emit func(i int64)) {
		sending.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				emit(count.Load())
				count.Add(1)
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	publish(&published, func(i int64) {
		if err := b.To("room").Emit(context.WithoutCancel(ctx), "server", i); err != nil {
			t.Error(err)
		}
	})
	for s, sent := range senders {
		publish(sent, func(i int64) { s.emit("to", "room", s.name, i) })
	}

	draining, stop := context.WithTimeout(ctx, patience)
	defer stop()
	f.newer.Store(b)
	if err := a.Drain(draining, 2*time.Second); err != nil {
		t.Errorf("Drain: %v", err)
	}
	closeServer(t, a)
	for _, s := range slices.AppendSeq(slices.Clone(listeners), maps.Keys(senders)) {
		if r := s.await("disconnect"); r.Reason != "transport close" {
			t.Errorf("%s is disconnected by %q", s.name, r.Reason)
		}
		now := s.await("connect")
		if was, ok := before[s]; ok && (!now.Recovered || now.ID != was.ID) {
			t.Errorf("%s was %+v and is %+v", s.name, was, now)
		}
	}
	cancel()
	sending.Wait()
	counts := map[string]int64{"server": published.Load()}
	for s, sent := range senders {
		counts[s.name] = sent.Load()
	}
	for _, s := range listeners {
		s.hearsAll(counts)
	}
	for range 2 { // nothing is left over
		if err := b.To("room").Emit(t.Context(), "end"); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range listeners {
		s.hears("end")
		s.hears("end")
	}
	t.Logf("events: %v", counts)
}

// hearsAll waits for numbered events of some names, each number once and in order.
func (s *npmSocket) hearsAll(counts map[string]int64) {
	s.driver.t.Helper()
	next := map[string]int64{}
	for !maps.Equal(next, counts) {
		r := s.await("event")
		if got := fmt.Sprint(r.texts()); got != fmt.Sprintf("[%d]", next[r.Event]) {
			s.driver.t.Fatalf("%s: %s %s, want %d", s.name, r.Event, got, next[r.Event])
		}
		next[r.Event]++
	}
}

// TestDrainInACluster: a replaced node loses no events, neither of its own
// clients nor of those whose requests it forwards.
func TestDrainInACluster(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, "REJOIN_DRAIN_DELAY=500ms", "REJOIN_DRAIN_BUDGET=4s")
	anywhere := startBalancer(t, c)
	leaving, staying := c.nodes[0], c.nodes[1]
	// Half of the clients begin on the node that leaves. Their further requests go
	// through all nodes, as those of the others.
	var there atomic.Bool
	begin := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: leaving.public})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if there.Load() && !r.URL.Query().Has("sid") {
			begin.ServeHTTP(w, r)
		} else {
			anywhere.Config.Handler.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(web.Close) // after the clients' process has ended
	d := startDriver(t)
	before := map[*npmSocket]state{}
	for name, options := range transports {
		for i := range 4 {
			there.Store(i < 2)
			s := d.open(fmt.Sprint(name, i), newest, web.URL, options)
			if name == "upgrade" {
				s.awaitUpgrade()
			}
			s.call("join", "room")
			before[s] = s.state()
		}
	}
	speaker := d.open("speaker", newest, staying.url(), transports["websocket"])
	ended := make(chan struct{})
	go func() { // ends with the node
		leaving.term()
		close(ended)
	}()
	spoken := int64(0)
	for over := false; !over; spoken++ {
		speaker.call("to", "room", "n", spoken)
		select {
		case <-ended:
			over = true
		default:
		}
	}
	moved := 0
	for s, was := range before {
		s.hearsAll(map[string]int64{"n": spoken})
		now := s.state()
		if !now.Connected || now.ID != was.ID || c.owner(now.Engine) == leaving.name {
			t.Errorf("%s was %+v and is %+v", s.name, was, now)
		}
		if c.owner(was.Engine) != leaving.name {
			continue
		}
		moved++
		if r := s.await("disconnect"); r.Reason != "transport close" {
			t.Errorf("%s is disconnected by %q", s.name, r.Reason)
		}
	}
	if drained := fmt.Sprintf(`"closed":%d`, moved); moved < 6 || !leaving.log.Contains(drained) {
		t.Errorf("%d clients were on the node that left; its log lacks %s\n%s", moved, drained, leaving.log)
	}
	speaker.call("to", "room", "end")
	for s := range before {
		s.hears("end")
	}
	t.Logf("%d events, %d of %d clients moved", spoken, moved, len(before))
}

func closeServer(t *testing.T, srv *socketio.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := srv.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

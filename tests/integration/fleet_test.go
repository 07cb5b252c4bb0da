package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/tests/integration/sioclient"
)

// A fleet is clients that roam over the nodes of a cluster, each with a witness,
// publishers, and a list of the faults that struck meanwhile.
type fleet struct {
	t *testing.T
	*cluster
	ledger     ledger
	tokens     bool // the clients show them
	witnesses  []*witness
	publishers []*publisher
	clients    sync.WaitGroup
	sending    sync.WaitGroup
	keyed      keyedCounts

	mu     sync.Mutex
	faults []fault
	killed map[string]time.Time // node ids of processes that were killed
}

// A fault is an injected fault of the cluster, with its time.
type fault struct {
	what     string
	from, to time.Time // to is zero while it lasts
	harm     harm
}

// A harm is the effect of a fault on history. If it may destroy a part, earlier
// sessions may be refused; if it does, none of them may be recovered.
type harm int

const (
	harmless harm = iota
	mayDestroy
	destroys
)

// strike does something to the cluster and remembers it.
func (f *fleet) strike(what string, h harm, do func()) {
	f.mu.Lock()
	i := len(f.faults)
	f.faults = append(f.faults, fault{what: what, from: time.Now(), harm: h})
	f.mu.Unlock()
	do()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults[i].to = time.Now()
}

// kill ends a node with SIGKILL.
func (f *fleet) kill(n *clusterNode) {
	f.mu.Lock()
	if f.killed == nil {
		f.killed = map[string]time.Time{}
	}
	f.killed[n.id.Load().(string)] = time.Now()
	f.mu.Unlock()
	n.kill()
}

// excused reports whether history may have been destroyed after a session was born.
func (f *fleet) excused(born time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.faults, func(g fault) bool {
		return g.harm > harmless && (g.to.IsZero() || born.Before(g.to.Add(time.Second)))
	})
}

// arrives notifies a witness that its client has connected, and counts the kind
// of the connect.
func (f *fleet) arrives(w *witness, recovered bool, engine, before string) (joined bool) {
	former, joined := w.connected(recovered, f.owner(engine)+" "+engine[:4])
	if former.IsZero() {
		return joined
	}
	excused := f.excused(former)
	f.mu.Lock()
	defer f.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	lapsed := w.lapsed
	w.lapsed = false
	if recovered {
		w.recovered++
		if lapsed {
			w.afterExpiry++
		}
		if _, killed := f.killed[before[:4]]; killed && before[:4] != engine[:4] {
			w.afterKill++
		}
		return joined
	}
	w.refused++
	if !excused {
		w.problem("REFUSED without a cause: the session was born at %s or later", former.Format("05.000"))
	}
	return joined
}

// roam adds a Go client to the fleet that stays connected for about life and is
// then cut, or vanishes, and reconnects to another node. A life of 0 has no
// end.
func (f *fleet) roam(ctx context.Context, name string, life time.Duration, rooms ...string) {
	w := newWitness(name, &f.ledger, rooms...)
	f.witnesses = append(f.witnesses, w)
	client := sioclient.New(sioclient.Options{Auth: f.auth(name, w), OnEvent: func(e sioclient.Event) {
		if e.Name == "n" {
			w.hearsArgs(e.Args)
		}
	}})
	f.clients.Go(func() {
		defer client.Cut()
		pause := 20 * time.Millisecond // grows, so that refused clients do not overload the nodes
		for ctx.Err() == nil {
			if f.visit(ctx, w, client, life) {
				pause = 20 * time.Millisecond
			} else {
				wait(ctx, pause/2+rand.N(pause))
				pause = min(2*pause, time.Second)
			}
		}
	})
}

// visit is one connection of a client, from connecting to its end. It reports
// whether it came to that.
func (f *fleet) visit(ctx context.Context, w *witness, client *sioclient.Client, life time.Duration) bool {
	before := client.Engine()
	client.Roam(wsURL(f.cluster.roam().public))
	w.connects(client.Offset())
	if err := bounded(ctx, client.Connect); err != nil {
		w.note("cannot connect: %v", err)
		return false
	}
	if !f.arrives(w, client.Recovered(), client.Engine(), before) {
		w.joining()
		if err := bounded(ctx, func(ctx context.Context) error { _, err := call(ctx, client, "join", w.rooms); return err }); err != nil {
			w.note("cannot join: %v", err)
			client.Cut()
			return false
		}
		w.hasJoined()
	}
	alone := context.Background()
	if life > 0 {
		var cancel context.CancelFunc
		alone, cancel = context.WithTimeout(ctx, time.Duration(rand.ExpFloat64()*float64(life)))
		defer cancel()
	}
	select {
	case <-client.Ended():
		w.cutOff()
	case <-alone.Done():
		if ctx.Err() == nil && rand.N(3) == 0 {
			w.note("vanishes")
			client.Vanish()
		} else if ctx.Err() == nil {
			w.note("cuts")
			client.Cut()
		}
	case <-ctx.Done():
	}
	wait(ctx, rand.N(200*time.Millisecond))
	return true
}

// roamStock adds a stock client that is connected, through a balancer. It is cut
// as those of roam are.
func (f *fleet) roamStock(ctx context.Context, s *npmSocket, life time.Duration, rooms ...string) {
	w := newWitness(s.name, &f.ledger, rooms...)
	f.witnesses = append(f.witnesses, w)
	before := s.state().Engine
	w.connected(false, f.owner(before))
	f.showsTokens(s)
	s.must("member", map[string]any{"rooms": rooms})
	f.clients.Go(func() { // ends soon after the context, because nothing waits for reports any longer
		for ctx.Err() == nil {
			r, err := s.reports.Next(100 * time.Millisecond)
			if err != nil {
				continue
			}
			switch r.Report {
			case "connect":
				f.arrives(w, r.Recovered, r.Engine, before)
				before = r.Engine
			case "joined": // some time ago, so the events sent before are unknown
				w.hasJoined()
			case "event":
				if r.Event == "n" {
					w.hearsArgs(r.Args)
				}
			default:
				w.disturbed(r.Report, r.Reason)
			}
		}
	})
	if life > 0 {
		f.clients.Go(func() {
			for ctx.Err() == nil {
				wait(ctx, time.Duration(rand.ExpFloat64()*float64(life)))
				if _, err := s.driver.do("cut", map[string]any{"socket": s.name}); err != nil && ctx.Err() == nil {
					w.note("cannot be cut: %v", err)
				}
			}
		})
	}
}

// publish adds a publisher, which sends until the context ends or it has sent
// all.
func (f *fleet) publish(ctx context.Context, p *publisher) {
	p.ledger, p.auth = &f.ledger, f.auth(p.name, nil)
	if p.node == nil {
		p.node = func() string { return f.cluster.roam().public }
	}
	f.publishers = append(f.publishers, p)
	f.sending.Go(func() { p.run(ctx) })
}

// awaitJoined waits until all clients are in their rooms.
func (f *fleet) awaitJoined() {
	f.t.Helper()
	f.await("not all clients have joined", func(w *witness) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.joined {
			return errors.New("it is not in its rooms")
		}
		return nil
	})
}

func (f *fleet) await(otherwise string, check func(w *witness) error) bool {
	f.t.Helper()
	var culprit *witness
	good := eventually(f.t, otherwise, func() error {
		for _, w := range f.witnesses {
			if err := check(w); err != nil {
				culprit = w
				return fmt.Errorf("%s: %w", w.name, err)
			}
		}
		return nil
	})
	if !good {
		f.t.Logf("%s:\n    %s", culprit.name, culprit.dump())
	}
	return good
}

// settle waits for the publishers, then until every client has got all expected
// events, and reports the errors. The clients must continue to roam meanwhile.
func (f *fleet) settle() {
	f.t.Helper()
	f.sending.Wait()
	if f.await("not everything has arrived", func(w *witness) error { return errors.Join(f.stale(w), w.complete()) }) {
		eventually(f.t, "undecided", func() error { return undecided(f.witnesses) })
	}
	f.judge()
}

// judge reports the errors, and the counts of what has happened.
func (f *fleet) judge() {
	f.t.Helper()
	shown, bad, heard := 0, 0, 0
	for _, w := range f.witnesses {
		heard += w.heard
		if err := w.verdict(); err != nil {
			bad++
			if shown++; shown <= 3 {
				f.t.Error(err)
			}
		}
	}
	r, sent, acked, failed := f.counts()
	f.t.Logf("%d sent, %d acknowledged, %d heard by %d clients; %d recovered (%d elsewhere after a kill, %d after a token's end), %d refused",
		sent, acked, heard, len(f.witnesses), r.recovered, r.afterKill, r.afterExpiry, r.refused)
	for err, n := range failed {
		f.t.Logf("%d times: %s", n, err)
	}
	if bad > 0 {
		var list strings.Builder
		for _, g := range f.faults {
			fmt.Fprintf(&list, "\n    %s to %s: %s", g.from.Format("05.000"), g.to.Format("05.000"), g.what)
		}
		f.t.Errorf("%d of %d clients got wrong events; the faults were:%s", bad, len(f.witnesses), &list)
	}
}

// stale returns an error if a client's session is older than a loss of history.
// All clients must be cut then, and reconnect with a new one.
func (f *fleet) stale(w *witness) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range f.faults {
		if g.harm == destroys && w.born.Before(g.from) {
			return fmt.Errorf("STALE: its session of %s has outlived the loss of history at %s", w.born.Format("05.000"), g.from.Format("05.000"))
		}
	}
	return nil
}

// reconnects returns the numbers of reconnects so far, by kind.
func (f *fleet) reconnects() (r reconnects) {
	for _, w := range f.witnesses {
		w.mu.Lock()
		r.recovered += w.recovered
		r.refused += w.refused
		r.afterKill += w.afterKill
		r.afterExpiry += w.afterExpiry
		w.mu.Unlock()
	}
	return r
}

// counts adds up. It is called when the publishers have ended.
func (f *fleet) counts() (r reconnects, sent, acked int, failed map[string]int) {
	r, failed = f.reconnects(), map[string]int{}
	for _, p := range f.publishers {
		sent += p.sent
		acked += p.acked
		for err, n := range p.failed {
			failed[err] += n
		}
	}
	return r, sent, acked, failed
}

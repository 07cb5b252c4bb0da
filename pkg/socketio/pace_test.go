package socketio

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/session"
)

func TestPaces(t *testing.T) {
	p := paces{pace: pace{3, time.Second}, most: time.Minute}
	now := time.Now()
	take := func(key string) (n int) {
		for n < 100 && p.take(key, now, 1) {
			n++
		}
		return n
	}
	if n := take("a"); n != 3 {
		t.Errorf("a burst of %d, want 3", n)
	}
	if n := take("b"); n != 3 {
		t.Errorf("another key has %d, want 3", n)
	}
	for range 10 {
		if now = now.Add(time.Second); take("a") != 1 {
			t.Error("not one more after an interval")
		}
	}
	if now = now.Add(3 * time.Minute); take("a") != 3 {
		t.Error("no new burst after a pause")
	}
	if len(p.due)+len(p.former) != 1 {
		t.Errorf("keys are kept: %d, want 1", len(p.due)+len(p.former))
	}
	if p.take("c", now, 2); take("c") != 1 {
		t.Error("an action of weight two does not count as two")
	}
	if p.add("c", now, -3*time.Second, 0); p.due["c"].After(now) || len(p.due) != 1 {
		t.Errorf("keys are kept without anything used: %v", p.due)
	}
	if p.add("c", now, time.Hour, 0); take("c") != 0 {
		t.Error("there is no debt")
	}
	if now = now.Add(p.most + p.pace.window()); take("c") != 3 {
		t.Error("a debt has no bound")
	}
}

// countedClaims counts the claims of sessions.
type countedClaims struct {
	session.Store
	claims int // read when nothing connects
}

func (c *countedClaims) Claim(ctx context.Context, pid, by string, ttl time.Duration, check func(session.Session) error) (session.Session, string, error) {
	c.claims++
	return c.Store.Claim(ctx, pid, by, ttl, check)
}

// A client that recovers repeatedly, faster than any stock client reconnects, must wait:
// its connection is closed, and it loses nothing.
func TestRecoveriesOfASessionAreLimited(t *testing.T) {
	store := &countedClaims{Store: session.NewMemory()}
	n := start(t, Options{Sessions: store})
	n.recoveries.pace = pace{5, 200 * time.Millisecond}
	joining(n.Namespace)
	w := n.client(t)
	pid := w.pid
	for range 5 {
		w.cut()
		if w = n.back(t, w); w.pid != pid {
			t.Fatal("not recovered")
		}
	}
	w.cut()
	for range 20 { // much less than the pace allows
		next := n.dial(t)
		next.write(fmt.Sprintf(`40{"pid":%q}`, pid))
		select {
		case <-next.closed:
		case <-next.in: // it is recovered
			next.cut()
		}
	}
	claims := store.claims
	if claims > 5+20/2 {
		t.Errorf("got %d claims, want at most %d", claims, 5+20/2)
	}
	if got := n.Stats().Limited[limitRecoveries]; got < 10 {
		t.Errorf("got %d counted, want at least 10", got)
	}
	eventually(t, "the client recovers", func() bool {
		next := n.dial(t)
		next.write(fmt.Sprintf(`40{"pid":%q}`, pid))
		select {
		case m := <-next.in:
			return m == fmt.Sprintf(`40{"sid":%q,"pid":%q}`, w.sid, pid)
		case <-next.closed:
			time.Sleep(50 * time.Millisecond) // as clients wait
			return false
		}
	})
	other := n.client(t)
	if other.cut(); n.back(t, other).pid != other.pid {
		t.Error("another session is not recovered")
	}
}

// heldClaims holds claims of sessions until they are released.
type heldClaims struct {
	session.Store
	begun chan struct{} // gets a value for each claim
	goOn  chan struct{} // closed to release them
}

func (h *heldClaims) Claim(ctx context.Context, pid, by string, ttl time.Duration, check func(session.Session) error) (session.Session, string, error) {
	h.begun <- struct{}{}
	<-h.goOn
	return h.Store.Claim(ctx, pid, by, ttl, check)
}

// The maximum cost of a recovery is charged before it begins, so connections that claim the
// same session concurrently cannot all pass.
func TestConcurrentRecoveriesOfASessionAreLimited(t *testing.T) {
	store := &heldClaims{session.NewMemory(), make(chan struct{}, 100), make(chan struct{})}
	n := start(t, Options{Sessions: store})
	n.recoveries.pace = pace{30, time.Minute}
	w := n.client(t)
	w.cut()
	const most = 3 // of a weight that is not known yet
	refused, all := 0, make([]*wire, 20)
	for i := range all {
		all[i] = n.dial(t)
		all[i].write(fmt.Sprintf(`40{"pid":%q}`, w.pid))
		select {
		case <-store.begun:
		case <-all[i].closed:
			refused++
		case <-time.After(patience):
			t.Fatal("a CONNECT is neither refused nor claims the session")
		}
	}
	if claims := len(all) - refused; claims > most {
		t.Errorf("%d concurrent recoveries pass, want %d", claims, most)
	}
	close(store.goOn)
	eventually(t, "the client recovers", func() bool { // the excess is given back
		next := n.dial(t)
		next.write(fmt.Sprintf(`40{"pid":%q}`, w.pid))
		select {
		case m := <-next.in:
			return m == fmt.Sprintf(`40{"sid":%q,"pid":%q}`, w.sid, w.pid)
		case <-next.closed:
			return false
		}
	})
}

// A private id that no node can have made is unknown: the store is not queried, and the
// server keeps nothing of it. It keeps nothing either of an id that the store does not
// know.
func TestMadeUpPrivateIDsAreNotKept(t *testing.T) {
	store := &countedClaims{Store: session.NewMemory()}
	n := start(t, Options{Sessions: store})
	for _, pid := range []string{"short", strings.Repeat("l", 60_000), newID() + "+", strings.Repeat("=", 20), newID()} {
		next := n.dial(t)
		next.write(fmt.Sprintf(`40{"pid":%q}`, pid))
		if m := next.next(); strings.Contains(m, pid) {
			t.Errorf("connected as %.80s", m)
		}
	}
	if store.claims != 1 {
		t.Errorf("the store is asked %d times, want once", store.claims)
	}
	if got := n.Stats().Recoveries[refusedUnknown]; got != 5 {
		t.Errorf("%d are refused as unknown, want 5", got)
	}
	if kept := len(n.recoveries.due) + len(n.recoveries.former); kept > 0 {
		t.Errorf("%d ids are kept, want 0", kept)
	}
}

// A recovery of many rooms counts as several: all of them are subscribed and read.
func TestRecoveriesOfLargeSessionsWeighMore(t *testing.T) {
	n := start(t, Options{})
	n.recoveries.pace = pace{20, time.Minute}
	joiningMany(n.Namespace)
	for _, test := range []struct{ rooms, want int }{{0, 20}, {100, 20}, {999, 2}} { // 999 are 380 kB
		w := n.client(t)
		w.call(fmt.Sprintf(`["join many",%d]`, test.rooms))
		w.cut()
		got := 0
		for recovered := true; recovered; {
			next := n.dial(t)
			next.write(fmt.Sprintf(`40{"pid":%q}`, w.pid))
			select {
			case <-next.in:
				got++
				next.cut()
			case <-next.closed:
				recovered = false
			}
		}
		if got != test.want {
			t.Errorf("%d recoveries with %d rooms, want %d", got, test.rooms, test.want)
		}
	}
}

// A connection that repeatedly connects to a namespace and leaves it is closed.
func TestConnectsOfAConnectionAreLimited(t *testing.T) {
	n := start(t, Options{NamespacesPerConnection: 2})
	n.Of("/a").OnConnect(func(*Socket) {})
	w := n.dial(t)
	for range 2 + connectsAgain { // the namespaces are / and /a
		w.connect("/a", "")
		w.write("41/a,")
	}
	for range 2 + connectsAgain {
		w.write("40/a,")
		w.write("41/a,")
	}
	select {
	case <-w.closed:
	case <-time.After(patience):
		t.Fatal("the connection is not closed")
	}
	if got := n.Stats().Limited[limitConnects]; got == 0 {
		t.Error("not counted")
	}
}

package socketio

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// Events that are not stored are not part of a replay. A client that recovers on a node
// whose feed is behind has received them on its former node, and does not get them
// again when the feed comes to them.
func TestUnstoredEventsOnANodeThatIsBehind(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	first := c.node(t, "first", Options{})
	a, err := c.memory.Node("behind")
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	feed := newDelayed(a)
	behind := start(t, Options{Adapter: feed, Sessions: c.sessions})
	joining(behind.Namespace)
	other, w := behind.client(t), first.client(t)
	release := feed.shut()
	must(t, first.Volatile().Emit(t.Context(), "volatile"))
	answers, err := first.ToSocket(w.sid, other.sid).Timeout(time.Hour).EmitWithAck(t.Context(), "question")
	must(t, err)
	w.want(`["volatile"]`)
	if m := w.next(); !strings.HasSuffix(m, `["question"]`) {
		t.Fatalf("got %s, want the question", m)
	}
	must(t, first.Emit(t.Context(), "stored"))
	w.want(`["stored"]`)
	w.cut()
	back := behind.back(t, w)
	if back.sid != w.sid {
		t.Fatal("not recovered")
	}
	release()
	must(t, first.Emit(t.Context(), "after"))
	back.want(`["after"]`)
	back.quiet()

	other.want(`["volatile"]`)
	m := other.next()
	id, ok := strings.CutSuffix(strings.TrimPrefix(m, "42"), `["question"]`)
	if !ok {
		t.Fatalf("got %s, want the question", m)
	}
	other.write("43" + id + "[]")
	ended := make(chan error)
	go func() {
		var last error
		for _, err := range answers.All() {
			last = err
		}
		ended <- last
	}()
	select {
	case err := <-ended:
		if silent := (*UnansweredError)(nil); !errors.As(err, &silent) || len(silent.Sockets) != 1 || silent.Sockets[0] != w.sid {
			t.Errorf("the question ended with %v, want socket %s unanswered", err, w.sid)
		}
	case <-time.After(patience):
		t.Error("the question did not end")
	}
}

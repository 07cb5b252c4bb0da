package socketio

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// A client that leaves a namespace ends its session, even while handlers of its
// socket still run: when it joins again, on any node and also on the same connection,
// it gets a new session, and OnDisconnect is called for the former one.
func TestLeaveAndJoinAgainIsANewSession(t *testing.T) {
	for _, where := range []string{"same connection", "same node", "other node"} {
		t.Run(where, func(t *testing.T) {
			c := newCluster(adapter.MemoryOptions{})
			n, other := c.node(t, "a", Options{}), c.node(t, "b", Options{})
			n.Of("/other")
			told := make(chan string, 1)
			n.OnConnect(func(s *Socket) { s.OnDisconnect(func(Reason) { told <- s.ID() }) })
			busy, release := make(chan struct{}), make(chan struct{})
			n.On("busy", func(context.Context, *Event) error {
				close(busy)
				<-release
				return nil
			})
			joining(n.Namespace)
			joining(other.Namespace)
			a := n.dial(t).connect("/other", "").connect("/", "")
			former := *a
			a.write(`42["busy"]`)
			<-busy
			a.write("41")
			b := a
			if where != "same connection" {
				eventually(t, "the socket has ended", func() bool { return n.owned.over(former.pid) })
				b = n.dial(t)
			}
			if where == "other node" {
				eventually(t, "the session has ended", func() bool {
					_, _, err := c.sessions.Claim(t.Context(), former.pid, "", time.Minute, func(session.Session) error { return errors.ErrUnsupported })
					return errors.Is(err, session.ErrNotFound)
				})
				b = other.dial(t)
			}
			b.connect("/", fmt.Sprintf(`{"pid":%q}`, former.pid))
			if b.sid == former.sid {
				t.Error("recovered a session that its client has ended")
			}
			close(release)
			select {
			case id := <-told:
				if id != former.sid {
					t.Errorf("OnDisconnect of %s, want %s", id, former.sid)
				}
			case <-time.After(patience):
				t.Error("OnDisconnect was not called")
			}
			b.quiet()
		})
	}
}

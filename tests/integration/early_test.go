package integration

import (
	"context"
	"strconv"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// TestEventsOfAMiddleware: a stock client takes the last string of an event for its
// offset, also of one that a middleware has emitted. It is recovered repeatedly and
// gets every event once.
func TestEventsOfAMiddleware(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]any{
		"no argument": nil,
		"string last": {1, "you"},
		"object last": {map[string]string{"to": "you"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv, front := serveSheet(t, socketio.Options{})
			srv.Use(func(_ context.Context, r *socketio.ConnectRequest) error { return r.Emit("welcome", args...) })
			ctx := t.Context()
			s := startDriver(t).open("early", newest, front.url(), map[string]any{"transports": []string{"websocket"}})
			s.next("welcome")
			numbered := 0
			publish := func() {
				t.Helper()
				numbered++
				if err := srv.Emit(ctx, "n", numbered); err != nil {
					t.Fatal(err)
				}
			}
			id := s.state().ID
			comeBack := func() {
				t.Helper()
				front.up()
				if r := s.await("connect"); !r.Recovered || r.ID != id {
					t.Fatalf("not recovered: %v", r)
				}
			}
			cut := func() {
				t.Helper()
				front.down()
				s.await("disconnect")
			}
			heard := 0
			hears := func() {
				t.Helper()
				for heard < numbered {
					r := s.await("event")
					if r.Event == "welcome" {
						continue
					}
					heard++
					if got := r.texts(); r.Event != "n" || len(got) != 1 || got[0] != strconv.Itoa(heard) {
						t.Fatalf("got %v, want number %d", r, heard)
					}
				}
			}
			cut()
			publish() // it has got no event of the session yet
			comeBack()
			hears()
			publish()
			hears()
			for range 3 { // nothing is missed, so that only the middleware's event follows CONNECT
				cut()
				comeBack()
			}
			publish()
			hears()
			cut()
			publish()
			publish()
			comeBack()
			publish()
			hears()
		})
	}
}

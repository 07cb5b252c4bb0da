package integration

import (
	"context"
	"errors"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// TestSenderIsRecovered: a stock client that only sends, more events than a room
// keeps, has missed nothing when it reconnects to another node.
func TestSenderIsRecovered(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	node, front := nodeOver(t, redis, "aaaa")
	other, _ := nodeOver(t, redis, "bbbb")
	const broadcasts = 2500 // of which a room keeps 1,000
	done := make(chan error, 1)
	node.OnConnect(func(s *socketio.Socket) {
		if s.Recovered() {
			return
		}
		if err := s.Join(s.Context(), "r"); err != nil {
			t.Error(err)
		}
		s.On("speak", func(ctx context.Context, _ *socketio.Event) (err error) {
			for i := range broadcasts {
				err = errors.Join(err, s.To("r").Emit(ctx, "n", i))
			}
			done <- err
			return err
		})
		if err := s.Emit(s.Context(), "welcome"); err != nil {
			t.Error(err)
		}
	})
	s := startDriver(t).open("sender", newest, front.url(), map[string]any{"transports": []string{"websocket"}})
	s.hears("welcome")
	id := s.state().ID
	s.emit("speak")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	front.down()
	s.await("disconnect")
	if err := other.To("r").Emit(t.Context(), "missed"); err != nil {
		t.Fatal(err)
	}
	front.up()
	if now := s.await("connect"); !now.Recovered || now.ID != id {
		t.Errorf("%+v, before %s: %v", now.state, id, node.Stats().Recoveries)
	}
	s.hears("missed")
	s.must("disconnect", nil)
}

package integration

import (
	"context"
	"errors"
	"testing"

	"go.uber.org/zap/zaptest"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
	sessions "github.com/rejoin-io/rejoin/pkg/session/redis"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// nodeOver runs a node of the library over a Redis, with a relay before it.
func nodeOver(t *testing.T, server *redistest.Server, name adapter.NodeID) (*socketio.Server, *relay) {
	t.Helper()
	target, err := redisurl.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	link, err := redis.New(ctx, redis.Options{Redis: target, Node: name, Address: "127.0.0.1:1", Logger: zaptest.NewLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	client := target.Client()
	store := sessions.New(client, sessions.Options{})
	t.Cleanup(func() {
		if err := errors.Join(store.Close(), client.Close(), link.Close()); err != nil {
			t.Error(err)
		}
	})
	return serveSheet(t, socketio.Options{Adapter: link, Sessions: store})
}

// wishKey is the key of the rooms that a client wants.
type wishKey struct{}

// serveOver runs a node of the library over a Redis, behind a relay. Its clients
// state their user, whether that is valid, and their rooms.
func serveOver(t *testing.T, server *redistest.Server, name adapter.NodeID) (*socketio.Server, *relay) {
	t.Helper()
	srv, front := nodeOver(t, server, name)
	srv.Use(func(_ context.Context, r *socketio.ConnectRequest) error {
		var claims struct {
			User     string
			Forged   bool
			MayNotBe string // in this room
			Rooms    []string
		}
		if err := r.Auth(&claims); err != nil || claims.Forged {
			return &socketio.ConnectError{Message: "who are you?"}
		}
		r.SetUser(claims.User)
		r.SetValue(wishKey{}, claims.Rooms)
		r.KeepRooms(func(room string) bool { return room != claims.MayNotBe })
		return nil
	})
	srv.OnConnect(func(s *socketio.Socket) {
		var err error
		if !s.Recovered() {
			err = s.Join(s.Context(), s.Value(wishKey{}).([]string)...)
		}
		if err == nil {
			err = s.Emit(s.Context(), "welcome")
		}
		if err != nil {
			t.Errorf("welcome: %v", err)
		}
	})
	return srv, front
}

// TestRemovedWhileDisconnected: commands on a client that is between two nodes have
// taken effect when it reconnects.
func TestRemovedWhileDisconnected(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	_, front := serveOver(t, redis, "aaaa")
	other, _ := serveOver(t, redis, "bbbb")
	d := startDriver(t)
	for name, test := range map[string]struct {
		meanwhile func(ctx context.Context, s socketio.Broadcast) error // to the client
		claims    map[string]any                                        // with which it reconnects
		recovered bool
		hears     []string
		stays     bool // in the room
	}{
		"nothing": {
			recovered: true,
			hears:     []string{"missed", "after", "welcome"},
			stays:     true,
		},
		"kicked": {
			meanwhile: func(ctx context.Context, s socketio.Broadcast) error { return s.DisconnectSockets(ctx, true) },
			hears:     []string{"welcome"},
		},
		"left by a command": {
			meanwhile: func(ctx context.Context, s socketio.Broadcast) error { return s.SocketsLeave(ctx, "club") },
			recovered: true,
			hears:     []string{"missed", "welcome"},
		},
		"a weaker token": {
			claims:    map[string]any{"user": "a weaker token", "mayNotBe": "club"},
			recovered: true,
			hears:     []string{"welcome"},
		},
		"a weaker token, and joined by a command": {
			meanwhile: func(ctx context.Context, s socketio.Broadcast) error { return s.SocketsJoin(ctx, "club") },
			claims:    map[string]any{"user": "a weaker token, and joined by a command", "mayNotBe": "club"},
			recovered: true,
			hears:     []string{"after", "welcome"},
			stays:     true,
		},
		"another user's token": {
			claims: map[string]any{"user": "somebody else"},
			hears:  []string{"welcome"},
		},
		"a forged token": {
			claims: map[string]any{"forged": true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			s := d.open(name, newest, front.url(), map[string]any{
				"transports": []string{"websocket"},
				"auth":       map[string]any{"user": name, "rooms": []string{"club"}},
			})
			s.hears("welcome")
			must(other.To("club").Emit(ctx, "first"))
			s.hears("first")
			id := s.state().ID

			front.down()
			s.await("disconnect")
			must(other.To("club").Emit(ctx, "missed"))
			if test.meanwhile != nil {
				must(test.meanwhile(ctx, other.ToSocket(id)))
			}
			must(other.To("club").Emit(ctx, "after"))
			if test.claims == nil {
				test.claims = map[string]any{"user": name}
			}
			s.must("auth", map[string]any{"auth": test.claims})
			front.up()

			if test.hears == nil {
				if r := s.await("connect_error"); r.Reason != "who are you?" {
					t.Errorf("refused with %q", r.Reason)
				}
			} else {
				now := s.await("connect")
				if now.Recovered != test.recovered || now.Recovered != (now.ID == id) {
					t.Errorf("%+v, before %s", now.state, id)
				}
				for _, event := range test.hears {
					s.next(event)
				}
				must(other.To("club").Emit(ctx, "now"))
				must(other.ToSocket(now.ID).Emit(ctx, "end"))
				if test.stays {
					s.next("now")
				}
				s.next("end")
			}
			s.must("disconnect", nil)
			for _, r := range s.reports.Drain() {
				if r.Report == "event" {
					t.Errorf("got %v", r)
				}
			}
		})
	}
}

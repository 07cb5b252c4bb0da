package docs

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/rejoin-io/rejoin/internal/api/idempotency"
	"github.com/rejoin-io/rejoin/internal/api/idempotency/idempotencytest"
	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/adaptertest"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
	sessions "github.com/rejoin-io/rejoin/pkg/session/redis"
	"github.com/rejoin-io/rejoin/pkg/session/sessiontest"
)

// A user is a Redis user that the document describes.
type user struct {
	name, password string
	commands       []string
	line           []any // of ACL SETUSER
}

var setUser = regexp.MustCompile(`(?m)^    (ACL SETUSER \S+ .*)$`)

// users returns the users in the document: for one server, and for a Cluster.
func users(t *testing.T) []user {
	t.Helper()
	var all []user
	for _, m := range setUser.FindAllStringSubmatch(read(t, "redis.md"), -1) {
		words := strings.Fields(m[1])
		u := user{name: words[2]}
		for _, w := range words {
			u.line = append(u.line, w)
			if command, ok := strings.CutPrefix(w, "+"); ok {
				u.commands = append(u.commands, command)
			}
			if password, ok := strings.CutPrefix(w, ">"); ok {
				u.password = password
			}
		}
		all = append(all, u)
	}
	if len(all) != 2 {
		t.Fatalf("got %d users in the document, want 2", len(all))
	}
	return all
}

// TestACL: nodes need the rights that the document gives them, and no others.
func TestACL(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	underACL(t, users(t)[0], server.URL(), []*redistest.Server{server}, func(*testing.T, *sessions.Store) {})
}

func TestACLOfACluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t)
	underACL(t, users(t)[1], c.URL(), c.Servers, func(t *testing.T, s *sessions.Store) { onTheMove(t, c, s) })
}

func underACL(t *testing.T, u user, at string, servers []*redistest.Server, more func(*testing.T, *sessions.Store)) {
	for _, s := range servers {
		for _, command := range [][]any{u.line, {"CONFIG", "RESETSTAT"}} {
			if err := s.Client().Do(t.Context(), command...).Err(); err != nil {
				t.Fatalf("%v: %v", command, err)
			}
		}
	}
	address, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	address.User = url.UserPassword(u.name, u.password)
	target, err := redisurl.Parse(address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, s := range servers {
			denied, err := s.Client().Do(context.Background(), "ACL", "LOG").Slice()
			if err != nil || len(denied) > 0 {
				t.Errorf("%s denied %v, %v", s.Addr, denied, err)
			}
		}
	}()
	if err := target.Check(deadline(t)); err != nil {
		t.Errorf("Check: %v", err)
	}
	if !t.Run("Silence", func(t *testing.T) { silence(t, target, servers) }) {
		return
	}
	t.Run("Adapter", func(t *testing.T) {
		adaptertest.Run(t, func(t *testing.T, o adaptertest.Options) adaptertest.Cluster {
			return &cluster{t, servers, redis.Options{Redis: target, Prefix: prefix(t), BacklogLimit: o.BacklogLimit, BacklogTTL: o.BacklogTTL}}
		})
	})
	t.Run("Sessions", func(t *testing.T) {
		client := target.Client()
		t.Cleanup(func() { _ = client.Close() })
		sessiontest.Run(t, func(t *testing.T) session.Store {
			s := sessions.New(client, sessions.Options{Prefix: prefix(t)})
			t.Cleanup(func() { _ = s.Close() })
			return s
		})
	})
	t.Run("Calls", func(t *testing.T) {
		client := target.Client()
		t.Cleanup(func() { _ = client.Close() })
		idempotencytest.Run(t, func(t *testing.T, lifetime time.Duration) idempotency.Store {
			return idempotency.NewRedis(client, idempotency.RedisOptions{Prefix: prefix(t), Lifetime: lifetime})
		})
	})
	t.Run("More", func(t *testing.T) {
		client := target.Client()
		t.Cleanup(func() { _ = client.Close() })
		s := sessions.New(client, sessions.Options{Prefix: prefix(t)})
		t.Cleanup(func() { _ = s.Close() })
		more(t, s)
	})
	used := ""
	for _, s := range servers {
		stats, err := s.Client().Info(t.Context(), "commandstats").Result()
		if err != nil {
			t.Fatal(err)
		}
		used += stats
	}
	for _, command := range u.commands {
		if !strings.Contains(used, "cmdstat_"+command+":") {
			t.Errorf("the right to %s is not needed", command)
		}
	}
}

// silence makes a call whose outcome is unknown: its connection is killed before the next
// call. A room without members is unsubscribed after a while.
func silence(t *testing.T, target *redisurl.Target, servers []*redistest.Server) {
	a, err := redis.New(deadline(t), redis.Options{Redis: target, Node: "a", Prefix: prefix(t), Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	room := rooms.InNamed("/", "r")
	if _, err := a.Subscribe(deadline(t), room); err != nil {
		t.Fatal(err)
	}
	heard := a.Stats().Subscriptions
	a.Unsubscribe(room)
	for ctx := deadline(t); a.Stats().Subscriptions == heard; {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("the room is still subscribed")
		}
	}
	e := adapter.Event{Target: rooms.Target{To: []rooms.Room{room}}, Stored: true}
	for _, s := range servers { // paused for clients, but not for other servers
		if err := s.Client().Do(t.Context(), "CLIENT", "PAUSE", 3000, "ALL").Err(); err != nil {
			t.Fatal(err)
		}
	}
	_, err = a.Publish(deadline(t), e)
	if !errors.Is(err, adapter.ErrUnavailable) && !errors.Is(err, adapter.ErrNotPublished) { // it may wait behind a probe
		t.Errorf("Publish to a silent server: %v", err)
	}
	for ctx := deadline(t); ; {
		if _, err = a.Publish(ctx, e); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		t.Errorf("Publish afterwards: %v", err)
	}
}

// onTheMove writes a session whose slot is being moved from one server to another.
func onTheMove(t *testing.T, c *redistest.Cluster, s *sessions.Store) {
	sum := sha256.Sum256([]byte("pid"))
	slot := c.Slot(prefix(t) + "s:" + base64.RawURLEncoding.EncodeToString(sum[:]))
	from, to := c.Owner(slot), c.Masters()[0]
	if to == from {
		to = c.Masters()[1]
	}
	for _, step := range []struct {
		at   *redistest.Server
		what string
		id   string
	}{{to, "IMPORTING", from.ID()}, {from, "MIGRATING", to.ID()}} {
		if err := step.at.Client().Do(t.Context(), "CLUSTER", "SETSLOT", slot, step.what, step.id).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Create(deadline(t), session.Session{PID: "pid"}, time.Hour); err != nil {
		t.Errorf("Create: %v", err)
	}
	c.MoveSlot(slot, to)
}

// prefix returns a prefix of this test that the users may use.
func prefix(t *testing.T) string { return "rejoin:" + t.Name() + ":" }

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// A cluster is a cluster whose nodes use such a user.
type cluster struct {
	t       *testing.T
	servers []*redistest.Server
	o       redis.Options
}

func (c *cluster) Node(id adapter.NodeID) (adapter.Adapter, error) {
	o := c.o
	o.Node, o.Logger = id, zaptest.NewLogger(c.t, zaptest.Level(zap.WarnLevel))
	a, err := redis.New(deadline(c.t), o)
	if err != nil {
		return nil, err // an untyped nil
	}
	return a, nil
}

func (c *cluster) Reset() {
	for _, s := range c.servers {
		role, err := s.Client().Do(context.Background(), "ROLE").Slice()
		if err == nil && slices.Contains(role, any("master")) {
			err = s.Client().FlushAll(context.Background()).Err()
		}
		if err != nil {
			c.t.Errorf("%s: %v", s.Addr, err)
		}
	}
}

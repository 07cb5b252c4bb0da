package docs

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/internal/api/idempotency"
	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
	sessions "github.com/rejoin-io/rejoin/pkg/session/redis"
)

// sizeRow matches a row of the document's table of sizes: a name, and bytes.
var sizeRow = regexp.MustCompile(`(?m)^\| ([^|]+?) \| about ([\d,]+) bytes \|`)

// TestSizes measures the sizes in the document's table of memory in Redis.
func TestSizes(t *testing.T) {
	server := redistest.Start(t)
	c := server.Client()
	measured := map[string]float64{
		"an entry of the clock":                                     clockEntry(t, server),
		"an event in a backlog, 160 bytes of data":                  backlogEntry(t, server, 160),
		"an event in a backlog, 1,000 bytes of data":                backlogEntry(t, server, 1000),
		"a backlog of one event":                                    backlog(t, server),
		"a session in 1 room":                                       sessionIn(t, server, 1),
		"a session in 5 rooms":                                      sessionIn(t, server, 5),
		"a session in 100 rooms":                                    sessionIn(t, server, 100),
		"an ask that is remembered by its key, without its answers": remembered(t, server),
		"the id of an event that is published once":                 onceKey(t, server),
		"a channel with one subscribed node":                        channel(t, c),
	}
	documented := make(map[string]float64)
	for _, m := range sizeRow.FindAllStringSubmatch(read(t, "redis.md"), -1) {
		n, err := strconv.ParseFloat(strings.ReplaceAll(m[2], ",", ""), 64)
		if err != nil {
			t.Fatal(err)
		}
		documented[m[1]] = n
	}
	for what, got := range measured {
		t.Logf("%s: %.1f bytes", what, got)
		if want := documented[what]; got < 0.8*want || got > 1.2*want {
			t.Errorf("%s has %.1f bytes, the document says %.0f, want at least %.1f, at most %.1f", what, got, want, 0.8*want, 1.2*want)
		}
		delete(documented, what)
	}
	for what := range documented {
		t.Errorf("the document has %q, which is not measured", what)
	}
}

// used returns the memory of a key, with its name.
func used(t *testing.T, c *goredis.Client, key string) float64 {
	t.Helper()
	n, err := c.MemoryUsage(t.Context(), key, 0).Result()
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return float64(n)
}

// only returns the only key that matches a pattern.
func only(t *testing.T, c *goredis.Client, pattern string) string {
	t.Helper()
	keys, err := c.Keys(t.Context(), pattern).Result()
	if err != nil || len(keys) != 1 {
		t.Fatalf("%s: %q, %v", pattern, keys, err)
	}
	return keys[0]
}

func node(t *testing.T, server *redistest.Server, o redis.Options) *redis.Adapter {
	t.Helper()
	target, err := redisurl.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	o.Redis, o.Node, o.Prefix = target, "node", fmt.Sprint("rejoin", time.Now().UnixNano(), ":")
	a, err := redis.New(deadline(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// publish sends events of a size to a room.
func publish(t *testing.T, a *redis.Adapter, events, size int) {
	t.Helper()
	e := adapter.Event{Target: rooms.Target{To: []rooms.Room{rooms.InNamed("/", "lobby")}}, Stored: true, Data: make([]byte, size)}
	for range events {
		if _, err := a.Publish(deadline(t), e); err != nil {
			t.Fatal(err)
		}
	}
}

func clockEntry(t *testing.T, server *redistest.Server) float64 {
	server.Client().FlushAll(t.Context())
	a := node(t, server, redis.Options{})
	publish(t, a, 1000, 0)
	clock := only(t, server.Client(), "*:clock")
	before, entries := used(t, server.Client(), clock), server.Client().XLen(t.Context(), clock).Val()
	publish(t, a, 1000, 0)
	return (used(t, server.Client(), clock) - before) / float64(server.Client().XLen(t.Context(), clock).Val()-entries)
}

func backlogEntry(t *testing.T, server *redistest.Server, size int) float64 {
	const n = 1000
	server.Client().FlushAll(t.Context())
	a := node(t, server, redis.Options{BacklogLimit: n})
	publish(t, a, n, size)
	return used(t, server.Client(), only(t, server.Client(), "*:r/,lobby")) / n
}

func backlog(t *testing.T, server *redistest.Server) float64 {
	server.Client().FlushAll(t.Context())
	a := node(t, server, redis.Options{})
	publish(t, a, 1, 0)
	return used(t, server.Client(), only(t, server.Client(), "*:r/,lobby"))
}

func sessionIn(t *testing.T, server *redistest.Server, n int) float64 {
	server.Client().FlushAll(t.Context())
	a := node(t, server, redis.Options{})
	s := sessions.New(server.Client(), sessions.Options{})
	defer s.Close()
	sn := session.Session{PID: "a private id, of 20 b", ID: "01234567890123456789", Namespace: "/", Owner: "node"}
	for i := range n {
		joined, err := a.Subscribe(deadline(t), rooms.InNamed("/", fmt.Sprint("room ", i)))
		if err != nil {
			t.Fatal(err)
		}
		sn.Epoch = joined.Epoch
		sn.Rooms = append(sn.Rooms, session.Membership{Kind: 2, Name: fmt.Sprint("room ", i), Join: joined.String()})
	}
	if err := s.Create(deadline(t), sn, time.Hour); err != nil {
		t.Fatal(err)
	}
	return used(t, server.Client(), only(t, server.Client(), "*:s:*"))
}

// channel subscribes many channels on one connection.
func channel(t *testing.T, c *goredis.Client) float64 {
	const n = 10_000
	memory := func() float64 {
		info, err := c.InfoMap(t.Context(), "memory").Result()
		if err != nil {
			t.Fatal(err)
		}
		v, err := strconv.ParseFloat(info["Memory"]["used_memory"], 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	before := memory()
	p := c.Subscribe(t.Context())
	defer p.Close()
	for i := range n / 100 {
		var names []string
		for j := range 100 {
			names = append(names, fmt.Sprintf("rejoin:{0}ABCDEFGH:r/,room %d", i*100+j))
		}
		if err := p.Subscribe(t.Context(), names...); err != nil {
			t.Fatal(err)
		}
	}
	for range n {
		if _, err := p.ReceiveTimeout(t.Context(), 20*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	return (memory() - before) / n
}

// remembered is the size of a claimed ask with a short answer.
func remembered(t *testing.T, server *redistest.Server) float64 {
	t.Helper()
	s := idempotency.NewRedis(server.Client(), idempotency.RedisOptions{Prefix: "remembered:"})
	hash := base64.RawURLEncoding.EncodeToString(make([]byte, sha256.Size))
	c := idempotency.NewClaim("key", hash)
	if r, err := s.Claim(t.Context(), c); r != nil || err != nil {
		t.Fatalf("Claim: %+v, %v", r, err)
	}
	answer := []byte(`{"offset":"` + strings.Repeat("x", 70) + `"}`)
	if err := s.Finish(t.Context(), c, idempotency.Response{Status: 200, Body: answer}); err != nil {
		t.Fatal(err)
	}
	return used(t, server.Client(), only(t, server.Client(), "remembered:i:*"))
}

// onceKey is the size of the key of an event with a once id.
func onceKey(t *testing.T, server *redistest.Server) float64 {
	t.Helper()
	server.Client().FlushAll(t.Context())
	a := node(t, server, redis.Options{})
	e := adapter.Event{Target: rooms.Target{To: []rooms.Room{rooms.InNamed("/", "lobby")}}, Once: &adapter.Once{}}
	if _, err := a.Publish(deadline(t), e); err != nil {
		t.Fatal(err)
	}
	return used(t, server.Client(), only(t, server.Client(), "*:1/*"))
}

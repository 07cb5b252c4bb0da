package redisurl

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/internal/redistest"
)

func parse(t *testing.T, url string) *Target {
	t.Helper()
	target, err := Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func deadline(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// primary calls Primary until it returns the expected server.
func awaitPrimary(t *testing.T, target *Target, key, want string) {
	t.Helper()
	ctx := deadline(t, 20*time.Second)
	for {
		o, err := target.Primary(ctx, key)
		if err == nil && o.Addr == want {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the primary is %+v, %v, want %s", o, err, want)
		}
	}
}

// set writes to the server that Primary returns.
func set(t *testing.T, target *Target, key string) {
	t.Helper()
	ctx := deadline(t, 20*time.Second)
	o, err := target.Primary(ctx, key)
	if err != nil {
		t.Fatalf("Primary: %v", err)
	}
	c := redis.NewClient(o)
	defer c.Close()
	if err := c.Set(ctx, key, "v", 0).Err(); err != nil {
		t.Errorf("SET at %s: %v", o.Addr, err)
	}
	all := target.Client()
	defer all.Close()
	if v, err := all.Get(ctx, key).Result(); err != nil || v != "v" {
		t.Errorf(`GET: %q, %v, want "v"`, v, err)
	}
}

func TestSingle(t *testing.T) {
	s := redistest.Start(t, "requirepass p@ss")
	u := url.URL{Scheme: "redis", User: url.UserPassword("default", "p@ss"), Host: s.Addr}
	target := parse(t, u.String())
	set(t, target, "k")
	if err := target.Check(deadline(t, 20*time.Second)); err != nil {
		t.Errorf("Check: %v", err)
	}
	if err := parse(t, s.URL()).Check(deadline(t, 20*time.Second)); err == nil || errors.Is(err, ErrEvicts) || errors.Is(err, ErrTooOld) {
		t.Errorf("Check without the password: %v", err)
	}
}

func TestEviction(t *testing.T) {
	s := redistest.Start(t, "maxmemory-policy allkeys-lru")
	if err := parse(t, s.URL()).Check(deadline(t, 20*time.Second)); !errors.Is(err, ErrEvicts) || !strings.Contains(err.Error(), "allkeys-lru") || !strings.Contains(err.Error(), s.Addr) {
		t.Errorf("Check: %v, want ErrEvicts with the address and the policy", err)
	}
}

// Check needs only the right to run INFO.
func TestCheckByAUserWithFewRights(t *testing.T) {
	s := redistest.Start(t, "user few on >pass -@all +info +hello +auth", "user none on >pass -@all +hello +auth +get")
	if err := parse(t, strings.Replace(s.URL(), "redis://", "redis://few:pass@", 1)).Check(deadline(t, 20*time.Second)); err != nil {
		t.Errorf("Check: %v", err)
	}
	err := parse(t, strings.Replace(s.URL(), "redis://", "redis://none:pass@", 1)).Check(deadline(t, 20*time.Second))
	if err == nil || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("Check without INFO: %v, want the missing right", err)
	}
}

func TestAbsent(t *testing.T) {
	s := redistest.Start(t)
	s.Pause()
	defer s.Resume()
	began := time.Now()
	if err := parse(t, s.URL()).Check(deadline(t, 100*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), "timeout") {
		t.Errorf("Check: %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v, want at most %v", took, 5*time.Second)
	}
}

func TestSentinels(t *testing.T) {
	s := redistest.StartSentinels(t)
	target := parse(t, s.URL())
	awaitPrimary(t, target, "k", s.Primary().Addr)
	set(t, target, "k")
	if err := target.Check(deadline(t, 20*time.Second)); err != nil {
		t.Errorf("Check: %v", err)
	}

	// A paused Sentinel delays nothing, because the others agree.
	primary := s.Primary().Addr
	s.Sentinels[0].Pause()
	began := time.Now()
	awaitPrimary(t, target, "k", primary)
	if took := time.Since(began); took > patience/2 {
		t.Errorf("with a silent Sentinel it took %v, want at most %v", took, patience/2)
	}
	s.Sentinels[0].Resume()

	s.Failover()
	awaitPrimary(t, target, "k", s.Primary().Addr)
	set(t, target, "k")

	unknown := parse(t, strings.Replace(s.URL(), "master_name=", "master_name=un", 1))
	if _, err := unknown.Primary(deadline(t, 20*time.Second), "k"); err == nil || !strings.Contains(err.Error(), "no primary is called un") {
		t.Errorf("Primary of an unknown name: %v", err)
	}
}

func TestCluster(t *testing.T) {
	c := redistest.StartCluster(t)
	seed := c.Servers[0]
	target := parse(t, "redis+cluster://"+seed.Addr)
	for _, key := range []string{"a", "b", "c", "{a}d"} {
		awaitPrimary(t, target, key, c.Owner(c.Slot(key)).Addr)
		set(t, target, key)
	}
	if err := target.Check(deadline(t, 20*time.Second)); err != nil {
		t.Errorf("Check: %v", err)
	}
	// The other nodes are known by now, so the one in the URL may be unreachable.
	key := "1"
	for i := 2; c.Owner(c.Slot(key)) != seed; i++ {
		key = strconv.Itoa(i)
	}
	replica := c.Replica(seed)
	seed.Kill()
	c.AwaitMaster(replica)
	awaitPrimary(t, target, key, replica.Addr)
	if err := parse(t, replica.URL()).Check(deadline(t, 20*time.Second)); err == nil || !strings.Contains(err.Error(), "redis+cluster") {
		t.Errorf("Check of a Cluster's node by itself: %v", err)
	}
}

// TestReplicaIsRefused: a URL of a replica is refused immediately, and not only with the first write.
func TestReplicaIsRefused(t *testing.T) {
	server := redistest.Start(t)
	if err := server.Client().Do(t.Context(), "replicaof", "127.0.0.1", "1").Err(); err != nil {
		t.Fatal(err)
	}
	target, err := Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "READONLY") {
		t.Errorf("Check of a replica: got %v, want READONLY", err)
	}
}

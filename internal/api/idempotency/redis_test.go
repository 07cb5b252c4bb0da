package idempotency_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/api/idempotency"
	"github.com/rejoin-io/rejoin/internal/api/idempotency/idempotencytest"
	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
)

func open(t *testing.T, url string, o idempotency.RedisOptions) *idempotency.Redis {
	t.Helper()
	target, err := redisurl.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	client := target.Client()
	t.Cleanup(func() { _ = client.Close() })
	return idempotency.NewRedis(client, o)
}

func TestRedisContract(t *testing.T) {
	server := redistest.Start(t)
	contract(t, server.URL())
}

func TestRedisContractInACluster(t *testing.T) {
	c := redistest.StartCluster(t)
	contract(t, c.URL())
}

func contract(t *testing.T, url string) {
	n := 0
	idempotencytest.Run(t, func(t *testing.T, lifetime time.Duration) idempotency.Store {
		n++
		return open(t, url, idempotency.RedisOptions{Prefix: fmt.Sprint("test", n, ":"), Lifetime: lifetime})
	})
}

// key returns the name of a claim's key in Redis.
func key(c idempotency.Claim) string {
	sum := sha256.Sum256([]byte(c.Key))
	return "rejoin:i:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// TestDeadline: a Redis that is silent is given up, and a key that it holds is not
// taken for free.
func TestDeadline(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, server.URL(), idempotency.RedisOptions{Timeout: 200 * time.Millisecond})
	first := idempotency.NewClaim("key", "call")
	if r, err := s.Claim(t.Context(), first); r != nil || err != nil {
		t.Fatalf("Claim: %+v, %v", r, err)
	}
	server.Pause()
	defer server.Resume()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // a hundred times as long
	defer cancel()
	if r, err := s.Claim(ctx, idempotency.NewClaim("key", "call")); err == nil || ctx.Err() != nil {
		t.Errorf("Claim of a silent server: %+v, %v, %v", r, err, ctx.Err())
	}
}

// TestForeignValues: a value written by another program is an error.
func TestForeignValues(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, server.URL(), idempotency.RedisOptions{})
	c := idempotency.NewClaim("key", "call")
	for _, value := range []string{"short", "somebody else's, and long enough"} {
		if err := server.Client().Set(t.Context(), key(c), value, time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
		if r, err := s.Claim(t.Context(), c); err == nil || r != nil {
			t.Errorf("Claim: %+v, %v", r, err)
		}
		if err := s.Finish(t.Context(), c, idempotency.Response{}); !errors.Is(err, idempotency.ErrLost) {
			t.Errorf("Finish: %v, want idempotency.ErrLost", err)
		}
	}
}

// TestHugeValue: of a value that no node has written, a node reads little.
func TestHugeValue(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, server.URL(), idempotency.RedisOptions{})
	c := idempotency.NewClaim("key", "call")
	const size = 16 << 20
	if err := server.Client().Set(t.Context(), key(c), strings.Repeat("x", size), time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	before := sentBy(t, server)
	if r, err := s.Claim(t.Context(), c); err == nil {
		t.Errorf("Claim: %+v, want an error", r)
	}
	if read := sentBy(t, server) - before; read > size/8 {
		t.Errorf("read %d bytes, want at most %d", read, size/8)
	}
}

// sentBy returns the number of bytes that Redis has sent.
func sentBy(t *testing.T, server *redistest.Server) (n int) {
	t.Helper()
	info, err := server.Client().Info(t.Context(), "stats").Result()
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(info, "total_net_output_bytes:")
	if _, err := fmt.Sscan(text, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestKeyOfTheWrongType: a key that another program has overwritten fails alone, and does
// not count as free.
func TestKeyOfTheWrongType(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, server.URL(), idempotency.RedisOptions{})
	bad, good := idempotency.NewClaim("bad", "call"), idempotency.NewClaim("good", "call")
	if err := server.Client().SAdd(t.Context(), key(bad), "x").Err(); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Claim(t.Context(), bad); err == nil {
		t.Errorf("Claim: %+v, want an error", r)
	}
	if r, err := s.Claim(t.Context(), good); r != nil || err != nil {
		t.Errorf("Claim of another key: %+v, %v", r, err)
	}
}

//go:build unix

package redistest

import (
	"context"
	"errors"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServer(t *testing.T) {
	s := Start(t, "maxmemory 10mb")
	options, err := goredis.ParseURL(s.URL())
	if err != nil || options.Addr != s.Addr {
		t.Fatalf("%s: %v", s.URL(), err)
	}
	if got := s.must("CONFIG", "GET", "maxmemory").([]any)[1]; got != "10485760" {
		t.Errorf("maxmemory is %v, want 10485760", got)
	}
	s.must("SET", "k", "v")
	s.Restart()
	if _, err := s.do("GET", "k"); !errors.Is(err, goredis.Nil) {
		t.Errorf("after a restart without persistence: %v, want %v", err, goredis.Nil)
	}
	s.Kill()
	if _, err := s.do("PING"); err == nil {
		t.Error("it answers after its end")
	}
	s.Kill()
	s.Restart()
	s.must("PING")
}

func TestPersistence(t *testing.T) {
	s := Start(t, "appendonly yes", "appendfsync always")
	s.must("SET", "k", "v")
	s.Restart()
	if got := s.must("GET", "k"); got != "v" {
		t.Errorf("got %v, want v", got)
	}
}

func TestPause(t *testing.T) {
	s := Start(t)
	s.must("PING")
	s.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Client().Ping(ctx).Err(); err == nil {
		t.Error("the server answers while it is paused")
	}
	s.Resume()
	s.must("PING")
}

func TestPassword(t *testing.T) {
	s := Start(t, "requirepass secret")
	if _, err := s.do("PING"); err == nil {
		t.Error("no password is asked for")
	}
}

// A port belongs to one test until the test has ended, even while it has no listener.
func TestFreePortIsGivenOnce(t *testing.T) {
	given := make(map[string]bool)
	for range 600 {
		port := FreePort(t)
		if given[port] {
			t.Fatalf("port %s is given twice", port)
		}
		given[port] = true
	}
}

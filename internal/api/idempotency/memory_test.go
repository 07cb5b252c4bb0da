package idempotency_test

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/rejoin-io/rejoin/internal/api/idempotency"
	"github.com/rejoin-io/rejoin/internal/api/idempotency/idempotencytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	idempotencytest.Run(t, func(_ *testing.T, lifetime time.Duration) idempotency.Store {
		return idempotency.NewMemory(idempotency.MemoryOptions{Lifetime: lifetime})
	})
}

// TestMemoryIsBounded: a full store accepts no more keys until some have expired or were
// freed, and keeps each key until it expires.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := idempotency.NewMemory(idempotency.MemoryOptions{MaxBytes: 10 << 10})
		var claims []idempotency.Claim
		fill := func() (taken int) {
			t.Helper()
			for i := range 1000 {
				c := idempotency.NewClaim(fmt.Sprint(time.Now().UnixNano(), " ", i), "call")
				r, err := s.Claim(t.Context(), c)
				if errors.Is(err, idempotency.ErrFull) {
					return i
				}
				if r != nil || err != nil {
					t.Fatalf("Claim: %+v, %v", r, err)
				}
				claims = append(claims, c)
			}
			t.Fatal("it is never full")
			return 0
		}
		first := fill()
		if first < 10 || first > 10<<10/200 {
			t.Errorf("got %d keys in 10 KiB, want at least 10, at most %d", first, 10<<10/200)
		}
		time.Sleep(idempotency.Lifetime - time.Second)
		if n := fill(); n != 0 {
			t.Errorf("got %d more keys, before the others expired, want 0", n)
		}
		if r, err := s.Claim(t.Context(), idempotency.NewClaim(claims[0].Key, "call")); r == nil || err != nil {
			t.Errorf("the oldest key: %+v, %v", r, err)
		}
		if err := s.Free(t.Context(), claims[3]); err != nil {
			t.Error(err)
		}
		if n := fill(); n != 1 {
			t.Errorf("%d more keys for one that was freed, want 1", n)
		}
		time.Sleep(time.Second)
		if n := fill(); n != first-1 {
			t.Errorf("got %d more keys, after %d expired, want %d", n, first-1, first-1)
		}
	})
}

// TestFreedKeysTakeNoMemory: repeated failing calls, each with a new key, use no memory
// afterwards, even if an older key is still stored.
func TestFreedKeysTakeNoMemory(t *testing.T) {
	s := idempotency.NewMemory(idempotency.MemoryOptions{})
	if r, err := s.Claim(t.Context(), idempotency.NewClaim("key", "call")); r != nil || err != nil {
		t.Fatalf("Claim: %+v, %v", r, err)
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	const failed = 50_000
	for i := range failed {
		c := idempotency.NewClaim(fmt.Sprint(i), "call")
		if r, err := s.Claim(t.Context(), c); r != nil || err != nil {
			t.Fatalf("Claim: %+v, %v", r, err)
		}
		if err := s.Free(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if each := (heap() - before) / failed; each > 50 {
		t.Errorf("each takes %d bytes, want at most 50", each)
	}
	runtime.KeepAlive(s)
}

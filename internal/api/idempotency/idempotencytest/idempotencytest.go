// Package idempotencytest tests implementations of [idempotency.Store] against their contract.
package idempotencytest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/api/idempotency"
)

// A Maker creates an empty store for one test, whose keys have the given lifetime, and cleans up
// after it with t.Cleanup.
type Maker func(t *testing.T, lifetime time.Duration) idempotency.Store

// Run tests an implementation. Its subtests are the contract's rules.
func Run(t *testing.T, newStore Maker) {
	for _, rule := range []struct {
		name string
		life time.Duration
		test func(*store)
	}{
		{"AClaimIsOneOfMany", long, aClaimIsOneOfMany},
		{"AClaimTellsItsCallAndAge", long, aClaimTellsItsCallAndAge},
		{"AClaimMadeTwiceIsOne", long, aClaimMadeTwiceIsOne},
		{"AResponseIsKept", long, aResponseIsKept},
		{"AFreedKeyIsFree", long, aFreedKeyIsFree},
		{"OnlyItsClaimSettlesAKey", long, onlyItsClaimSettlesAKey},
		{"KeysExpireFromTheirClaim", short, keysExpireFromTheirClaim},
		{"ContextsEndCalls", long, contextsEndCalls},
	} {
		t.Run(rule.name, func(t *testing.T) { rule.test(&store{newStore(t, rule.life), t}) })
	}
}

const (
	long  = time.Hour   // longer than any test
	short = time.Second // expires within a test, but not before its next call
)

// testTimeout bounds a test's waits.
const testTimeout = 20 * time.Second

type store struct {
	idempotency.Store
	t *testing.T
}

// deadline returns a context for operations that must not take long.
func (s *store) deadline() context.Context {
	ctx, cancel := context.WithTimeout(s.t.Context(), testTimeout)
	s.t.Cleanup(cancel)
	return ctx
}

// claim claims a key, which must be free.
func (s *store) claim(key, call string) idempotency.Claim {
	s.t.Helper()
	c := idempotency.NewClaim(key, call)
	if r, err := s.Claim(s.deadline(), c); r != nil || err != nil {
		s.t.Fatalf("Claim of a free key: %+v, %v", r, err)
	}
	return c
}

// taken returns the record of a key, which must be claimed.
func (s *store) taken(key string) idempotency.Record {
	s.t.Helper()
	r, err := s.Claim(s.deadline(), idempotency.NewClaim(key, "another call"))
	if err != nil || r == nil {
		s.t.Fatalf("Claim of a key that is taken: %+v, %v", r, err)
	}
	return *r
}

func aClaimIsOneOfMany(s *store) {
	var won atomic.Int32
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			r, err := s.Claim(s.deadline(), idempotency.NewClaim("key", fmt.Sprint(i)))
			if err != nil {
				s.t.Errorf("Claim: %v", err)
			}
			if r == nil {
				won.Add(1)
			}
		})
	}
	if all.Wait(); won.Load() != 1 {
		s.t.Errorf("%d of 50 have the key, want 1", won.Load())
	}
}

func aClaimTellsItsCallAndAge(s *store) {
	s.claim("key", "call")
	s.claim("another key", "another call")
	if r := s.taken("key"); r.Call != "call" || r.Response != nil || r.Age < 0 || r.Age > testTimeout {
		s.t.Errorf("got %+v", r)
	}
}

func aClaimMadeTwiceIsOne(s *store) {
	c := s.claim("key", "call")
	if r, err := s.Claim(s.deadline(), c); r != nil || err != nil {
		s.t.Errorf("Claim, again: %+v, %v", r, err)
	}
	if r := s.taken("key"); r.Call != "call" {
		s.t.Errorf("got %+v", r)
	}
	if err := s.Finish(s.deadline(), c, idempotency.Response{Status: 200}); err != nil {
		s.t.Errorf("Finish: %v", err)
	}
}

func aResponseIsKept(s *store) {
	for _, want := range []idempotency.Response{
		{Status: 200, Body: []byte(`{"a":"<é>"}`)}, {Status: 204}, {Status: 503, Body: []byte{0, 255}},
	} {
		key := fmt.Sprint(want.Status)
		if err := s.Finish(s.deadline(), s.claim(key, "call"), want); err != nil {
			s.t.Errorf("Finish: %v", err)
		}
		for range 2 {
			if r := s.taken(key); r.Call != "call" || r.Response == nil || !reflect.DeepEqual(*r.Response, want) {
				s.t.Errorf("got %+v, want %+v", r, want)
			}
		}
	}
}

func aFreedKeyIsFree(s *store) {
	c := s.claim("key", "call")
	for range 2 { // a key that is free can be freed
		if err := s.Free(s.deadline(), c); err != nil {
			s.t.Errorf("Free: %v", err)
		}
	}
	s.claim("key", "another call")
}

func onlyItsClaimSettlesAKey(s *store) {
	first := s.claim("key", "call")
	if err := s.Free(s.deadline(), first); err != nil {
		s.t.Errorf("Free: %v", err)
	}
	second := s.claim("key", "call")
	if err := s.Finish(s.deadline(), first, idempotency.Response{Status: 200}); !errors.Is(err, idempotency.ErrLost) {
		s.t.Errorf("Finish of a lost claim: %v, want idempotency.ErrLost", err)
	}
	if err := s.Free(s.deadline(), first); err != nil {
		s.t.Errorf("Free of a lost claim: %v", err)
	}
	if r := s.taken("key"); r.Response != nil {
		s.t.Errorf("got %+v", r)
	}
	if err := s.Finish(s.deadline(), second, idempotency.Response{Status: 204}); err != nil {
		s.t.Errorf("Finish: %v", err)
	}
}

func keysExpireFromTheirClaim(s *store) {
	began := time.Now()
	c := s.claim("key", "call")
	if err := s.Finish(s.deadline(), c, idempotency.Response{Status: 200}); err != nil {
		s.t.Errorf("Finish: %v", err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ctx := s.deadline(); ; {
		r, err := s.Claim(ctx, idempotency.NewClaim("key", "another call"))
		if err != nil {
			s.t.Fatalf("the key does not expire: %v", err)
		}
		if r == nil {
			break
		}
		<-tick.C
	}
	if age := time.Since(began); age < short-20*time.Millisecond { // Redis counts whole milliseconds
		s.t.Errorf("the key is free after %v, want at least %v", age, short-20*time.Millisecond)
	}
	if err := s.Finish(s.deadline(), c, idempotency.Response{Status: 200}); !errors.Is(err, idempotency.ErrLost) {
		s.t.Errorf("Finish of an expired claim: %v, want idempotency.ErrLost", err)
	}
}

func contextsEndCalls(s *store) {
	ctx, cancel := context.WithCancel(s.t.Context())
	c := s.claim("key", "call")
	cancel()
	for verb, call := range map[string]func() error{
		"Claim":  func() error { _, err := s.Claim(ctx, idempotency.NewClaim("new", "call")); return err },
		"Finish": func() error { return s.Finish(ctx, c, idempotency.Response{}) },
		"Free":   func() error { return s.Free(ctx, c) },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			s.t.Errorf("%s: %v, want context.Canceled", verb, err)
		}
	}
}

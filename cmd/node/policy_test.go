package main

import (
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
)

// TestAcceptedEvictionIsReported: a policy that REJOIN_ALLOW_EVICTION accepts is logged once, each time
// that Redis gets it, and shown for as long.
func TestAcceptedEvictionIsReported(t *testing.T) {
	server := redistest.Start(t, "maxmemory-policy allkeys-lru")
	target, err := redisurl.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.WarnLevel)
	p := &policy{target: target, allowed: true, log: zap.New(core)}
	for _, step := range []struct {
		set    string
		risks  bool
		logged int
	}{{"", true, 1}, {"", true, 1}, {"noeviction", false, 1}, {"volatile-lru", true, 2}} {
		if step.set != "" {
			if err := server.Client().ConfigSet(t.Context(), "maxmemory-policy", step.set).Err(); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.check(t.Context()); err != nil || p.verdict() != nil {
			t.Errorf("%+v: got %v, %v, want none", step, err, p.verdict())
		}
		if p.risks.Load() != step.risks || logs.Len() != step.logged {
			t.Errorf("%+v: got %v, %d lines", step, p.risks.Load(), logs.Len())
		}
	}
}

package redis

import (
	"testing"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
	"github.com/rejoin-io/rejoin/pkg/session"
	"github.com/rejoin-io/rejoin/pkg/session/sessiontest"
)

// open returns a store of its own on a server that a URL names.
func open(t testing.TB, url string, o Options) *Store {
	t.Helper()
	target, err := redisurl.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	client := target.Client()
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	s := New(client, o)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func TestContract(t *testing.T) {
	server := redistest.Start(t)
	sessiontest.Run(t, func(t *testing.T) session.Store { return open(t, server.URL(), Options{Prefix: t.Name() + ":"}) })
}

func TestContractInACluster(t *testing.T) {
	cluster := redistest.StartCluster(t)
	sessiontest.Run(t, func(t *testing.T) session.Store { return open(t, cluster.URL(), Options{Prefix: t.Name() + ":"}) })
}

func TestContractBehindSentinels(t *testing.T) {
	sentinels := redistest.StartSentinels(t)
	sessiontest.Run(t, func(t *testing.T) session.Store { return open(t, sentinels.URL(), Options{Prefix: t.Name() + ":"}) })
}

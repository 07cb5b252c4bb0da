package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/metrics"
	"github.com/rejoin-io/rejoin/internal/redistest"
)

// TestReadyzNamesTheReason: /readyz names what is wrong with Redis, while the node waits for its
// cluster and after it has joined.
func TestReadyzNamesTheReason(t *testing.T) {
	var base config
	t.Run("Configuration", func(t *testing.T) { // in a test of its own, because parallel ones may not set variables
		environment(t, map[string]string{
			"REJOIN_ADDR": "127.0.0.1:0", "REJOIN_REDIS_TIMEOUT": "1s", "REJOIN_CLUSTER_SECRET": "that of the test's cluster",
		})
		base, _ = load()
	})
	for _, fault := range []struct {
		name            string
		breaks, repairs func(s *redistest.Server)
		starting, later string // what /readyz says
	}{
		{"Password", acl(">another", "resetpass"), acl(">secret", ""), "WRONGPASS", "WRONGPASS"},
		{"NoRight", acl("-evalsha", "-eval"), acl("+@all", ""), "NOPERM", "NOPERM"},
		{"Replica", do("replicaof", "127.0.0.1", "1"), do("replicaof", "no", "one"), "READONLY", "server has become a replica"},
		{"Unreachable", (*redistest.Server).Kill, (*redistest.Server).Restart, "connection refused", "connection refused"},
		{"Silent", (*redistest.Server).Pause, (*redistest.Server).Resume, "timeout", "timeout"},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, "user node on >secret ~* &* +@all", `user default on nopass ~* &* +@all`)
			internal := "127.0.0.1:" + redistest.FreePort(t)
			c := base
			if err := errors.Join(c.InternalAddr.Decode(internal), c.RedisURL.Decode("redis://node:secret@"+server.Addr)); err != nil {
				t.Fatal(err)
			}
			await := func(says string, status int) {
				t.Helper()
				body := ""
				for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
					response, err := http.Get("http://" + internal + "/readyz") //nolint:noctx // bounded by the loop
					if err != nil {
						continue
					}
					said, _ := io.ReadAll(response.Body)
					response.Body.Close()
					if body = string(said); response.StatusCode == status && strings.Contains(body, says) {
						return
					}
				}
				t.Errorf("/readyz does not answer %d with %q, but %s", status, says, body)
			}
			fault.breaks(server)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- serve(ctx, ctx, nil, c, metrics.Build{}, silent()) }()
			defer func() {
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}()
			await(fault.starting, http.StatusServiceUnavailable)
			fault.repairs(server)
			await("ready", http.StatusOK)
			fault.breaks(server)
			await(fault.later, http.StatusServiceUnavailable)
			fault.repairs(server)
			await("ready", http.StatusOK)
		})
	}
}

// acl changes the rights of the user of the nodes, and cuts their connections.
func acl(rules ...string) func(*redistest.Server) {
	return func(s *redistest.Server) {
		ctx := context.Background()
		for _, rule := range rules {
			if rule == "resetpass" || rule == "" {
				continue
			}
			if strings.HasPrefix(rule, ">") {
				s.Client().Do(ctx, "acl", "setuser", "node", "resetpass")
			}
			s.Client().Do(ctx, "acl", "setuser", "node", rule)
		}
		if strings.HasPrefix(rules[0], ">") {
			s.Client().Do(ctx, "client", "kill", "user", "node")
		}
	}
}

func do(args ...any) func(*redistest.Server) {
	return func(s *redistest.Server) { s.Client().Do(context.Background(), args...) }
}

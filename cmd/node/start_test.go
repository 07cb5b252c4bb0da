package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/metrics"
	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis"
)

// A node whose random id is in use takes another one.
func TestRandomNodeIDs(t *testing.T) {
	server := redistest.Start(t)
	other, stop := startNode(t, map[string]string{"REJOIN_REDIS_URL": server.URL(), "REJOIN_CLUSTER_SECRET": "that of the test's cluster"})
	defer stop()
	c, r := load()
	if len(r.problems) > 0 {
		t.Fatal(r.problems)
	}
	ids := []string{other.Node, "free"}
	roll := func() (id string) {
		id, ids = ids[0], ids[1:]
		return id
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n, err := start(ctx, c, roll, metrics.Build{}, silent())
	if err != nil {
		t.Fatal(err)
	}
	if id := n.cluster.adapter.Node(); id != "free" {
		t.Errorf("the node is %s, want free", id)
	}
	if err := n.stop(ctx, stopGrace); err != nil {
		t.Error(err)
	}
}

// A node that was stopped until another node took its id must leave the cluster.
func TestTakenNodeID(t *testing.T) {
	server := redistest.Start(t)
	environment(t, map[string]string{
		"REJOIN_ADDR": "127.0.0.1:0", "REJOIN_INTERNAL_ADDR": "127.0.0.1:0", "REJOIN_NODE_ID": "mine",
		"REJOIN_REDIS_URL": server.URL(), "REJOIN_CLUSTER_SECRET": "that of the test's cluster",
	})
	c, r := load()
	if len(r.problems) > 0 {
		t.Fatal(r.problems)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, ctx, nil, c, metrics.Build{}, silent()) }()
	// The keys that the other node's registration leaves in Redis.
	about := "rejoin:{0}about"
	for {
		said, err := server.Client().HGet(ctx, about, "mine").Result()
		if err == nil && !strings.Contains(said, "catchingUp") {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("node not live: got %q, %v", said, err)
		}
	}
	if err := server.Client().HSet(ctx, about, "mine", "the secret of another {}").Err(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, redis.ErrTaken) {
		t.Errorf("the node ended with %v, want %v", err, redis.ErrTaken)
	}
}

// TestMetricsWhileWaitingForRedis: a node that waits for its cluster shows in its metrics that it is
// not ready. They count on when it has joined.
func TestMetricsWhileWaitingForRedis(t *testing.T) {
	redis, internal := redistest.Start(t), "127.0.0.1:"+redistest.FreePort(t)
	redis.Kill()
	environment(t, map[string]string{
		"REJOIN_ADDR": "127.0.0.1:0", "REJOIN_INTERNAL_ADDR": internal, "REJOIN_API_KEYS": "0123456789abcdef",
		"REJOIN_REDIS_URL": redis.URL(), "REJOIN_CLUSTER_SECRET": "that of the test's cluster",
	})
	c, r := load()
	if len(r.problems) > 0 {
		t.Fatal(r.problems)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, ctx, nil, c, metrics.Build{}, silent()) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	await := func(lines ...string) {
		t.Helper()
		body := ""
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			response, err := http.Get("http://" + internal + "/metrics") //nolint:noctx // bounded by the loop
			if err != nil {
				continue
			}
			said, _ := io.ReadAll(response.Body)
			response.Body.Close()
			body = string(said)
			if !slices.ContainsFunc(lines, func(line string) bool { return !strings.Contains(body, "\n"+line+"\n") }) {
				return
			}
		}
		t.Fatalf("no metrics with %q: %.1000s", lines, body)
	}
	await("rejoin_ready 0", "rejoin_draining 0")
	if status, _ := fetch(t, "http://"+internal+"/api/v1/rooms"); status != http.StatusUnauthorized {
		t.Errorf("status %d, want 401", status)
	}
	counted := `rejoin_api_requests_total{caller="none",route="rooms",status="401"} 1`
	await(counted)
	redis.Restart()
	await("rejoin_ready 1", "rejoin_draining 0", counted)
}

func TestComplaints(t *testing.T) {
	var c repeatedError
	now := time.UnixMilli(0)
	refused := errors.New("dial tcp 127.0.0.1:6379: connection refused")
	for _, step := range []struct {
		after time.Duration
		err   error
		due   bool
	}{
		{0, refused, true},
		{999 * time.Millisecond, refused, false},
		{time.Millisecond, refused, true},
		{1900 * time.Millisecond, refused, false},
		{100 * time.Millisecond, refused, true},
		{4 * time.Second, refused, true},
		{8 * time.Second, refused, true},
		{16 * time.Second, refused, true},
		{29 * time.Second, refused, false},
		{time.Second, refused, true},
		{29 * time.Second, refused, false},
		{time.Second, refused, true},
		{0, errors.New("read tcp 127.0.0.1:41001->127.0.0.1:6379: i/o timeout"), true},
		{500 * time.Millisecond, errors.New("read tcp 127.0.0.1:41002->127.0.0.1:6379: i/o timeout"), false},
		{500 * time.Millisecond, errors.New("read tcp 127.0.0.1:41003->127.0.0.1:6379: i/o timeout"), true},
		{0, refused, true},
	} {
		now = now.Add(step.after)
		if due := c.due(step.err, now); due != step.due {
			t.Errorf("%v after the one before, %v: due is %v, want %v", step.after, step.err, due, step.due)
		}
	}
}

// silent returns a logger that writes nothing.
func silent() logger { return newLogger(config{LogLevel: "error", LogFormat: "json"}, io.Discard) }

package integration

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestAPIOnce: a call with an Idempotency-Key happens once, at whichever nodes it is
// made, and is answered as it was the first time.
func TestAPIOnce(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, withAPI)
	d := startDriver(t)
	ann := d.open("ann", newest, c.nodes[0].url(), transports["websocket"])
	ann.call("join", "x")
	const body = `{"rooms":["x"],"event":"news","args":[1]}`
	for round := range 10 {
		key := fmt.Sprint("round-", round)
		replies := make([]apiReply, 8)
		var calls sync.WaitGroup
		for i := range replies {
			calls.Go(func() {
				replies[i] = c.nodes[i%2].backend().do(apiCall{method: "POST", path: "emit", body: body, key: key})
			})
		}
		calls.Wait()
		first := 0
		for _, r := range replies {
			if r.header.Get("Idempotency-Replayed") == "" {
				first++
			}
			if r.status != http.StatusOK || r.Offset == "" || r.text != replies[0].text {
				t.Errorf("%d %s", r.status, r.text)
			}
		}
		if first != 1 {
			t.Errorf("%d calls were the first", first)
		}
		ann.hears("news", "1")
	}
	b := c.nodes[1].backend()
	b.post("emit", body, "key")
	ann.hears("news", "1")
	for path, other := range map[string]string{"emit": `{"rooms":["x"],"event":"news","args":[2]}`, "batch": `{"emits":[` + body + `]}`} {
		if r := b.do(apiCall{method: "POST", path: path, body: other, key: "key"}); r.status != http.StatusUnprocessableEntity || r.Code != "key_reused" || r.MayHave {
			t.Errorf("%d %s", r.status, r.text)
		}
	}
	// What failed did nothing, and its key is free.
	if r := b.do(apiCall{method: "POST", path: "emit", body: `{"rooms":[],"event":"news"}`, key: "new", wrong: true}); r.status != http.StatusBadRequest {
		t.Errorf("%d %s", r.status, r.text)
	}
	b.post("join", `{"rooms":["x"],"join":["y"]}`, "new")
	if r := b.post("join", `{"rooms":["x"],"join":["y"]}`, "new"); r.status != http.StatusNoContent || r.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("%d %s", r.status, r.text)
	}
	b.post("emit", `{"rooms":["y"],"event":"end"}`)
	ann.hears("end") // and nothing before
}

// TestAPIOnceNodeKilled: a call whose node is killed, or whose answer is lost, is repeated at the other
// node with its key until it is answered, and has happened once. With several partitions an event to
// rooms in two of them is completed as well.
func TestAPIOnceNodeKilled(t *testing.T) {
	t.Parallel()
	for _, partitions := range []string{"1", "5"} {
		t.Run(partitions, func(t *testing.T) {
			t.Parallel()
			c := startCluster(t, 2, withAPI, "REJOIN_PARTITIONS="+partitions, "REJOIN_REDIS_TIMEOUT=500ms")
			a, b := c.nodes[0], c.nodes[1]
			d := startDriver(t)
			ann := d.open("ann", newest, b.url(), transports["websocket"])
			ann.call("join", []string{"x", "y", "z"})
			heard := make(map[string]int)
			for round := range lasting(6, 2) {
				var callers sync.WaitGroup
				for i := range 8 {
					callers.Go(func() {
						for k := 0; ; k++ {
							emit := func(name string) string {
								return fmt.Sprintf(`{"rooms":["x","y","z"],"event":"news","args":["%d-%d-%d%s"]}`, round, i, k, name)
							}
							write := apiCall{method: "POST", path: "emit", body: emit(""), key: fmt.Sprint(round, "-", i, "-", k)}
							if i%2 == 1 {
								write.path, write.body = "batch", `{"emits":[`+emit("a")+","+emit("b")+`]}`
							}
							if r, err := a.backend().try(write); err == nil && r.happened() {
								continue
							}
							b.eventually("the answer to a repeated call", func() error {
								if r, err := b.backend().try(write); err != nil || !r.happened() {
									return fmt.Errorf("%d %s, %v", r.status, r.text, err)
								}
								return nil
							})
							return
						}
					})
				}
				time.Sleep(200 * time.Millisecond) // so that many calls are made
				a.kill()
				callers.Wait()
				b.backend().post("emit", `{"rooms":["x"],"event":"end"}`)
				for r := ann.await("event"); r.Event != "end"; r = ann.await("event") {
					heard[fmt.Sprint(r.texts())]++
				}
				a.restart()
				a.awaitReady()
			}
			for event, times := range heard {
				if times != 1 {
					t.Errorf("%s was heard %d times", event, times)
				}
			}
			if len(heard) < 50 {
				t.Errorf("%d events: the test has tested little", len(heard))
			}
		})
	}
}

// happened reports whether a write has succeeded: a batch, with all its emits.
func (r apiReply) happened() bool {
	return r.status == http.StatusOK && !strings.Contains(r.text, `"problem"`)
}

// TestAPINodeKilled: a call whose node is killed is not executed again under its
// key, because its outcome is unknown.
func TestAPINodeKilled(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, withAPI)
	a, b := c.nodes[0], c.nodes[1]
	d := startDriver(t)
	ann := d.open("ann", newest, b.url(), transports["websocket"])
	ann.call("join", "x")
	const question = `{"rooms":["x"],"event":"well?","timeout":60000}`
	d.suspend() // no node answers
	before := b.metrics()["rejoin_deliveries_total"]
	asked := make(chan error, 1)
	go func() { // ends with the node
		_, err := a.backend().try(apiCall{method: "POST", path: "ask", body: question, key: "key"})
		asked <- err
	}()
	b.eventually("asked", func() error {
		if b.metrics()["rejoin_deliveries_total"] == before {
			return errors.New("nothing is delivered")
		}
		return nil
	})
	a.kill()
	if err := <-asked; err == nil {
		t.Error("the killed node has answered")
	}
	if r := b.backend().do(apiCall{method: "POST", path: "ask", body: question, key: "key"}); r.Code != "under_way" || !r.MayHave {
		t.Errorf("%d %s", r.status, r.text)
	}
	d.resume()
	ann.hears("well?")
	b.backend().post("emit", `{"rooms":["x"],"event":"end"}`)
	ann.hears("end")
	a.restart()
}

// TestAPINodeStopped: a node that is stopped ends the calls that it has begun. Those
// that it has not can be made at the other one, with their keys.
func TestAPINodeStopped(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, withAPI, "REJOIN_DRAIN_DELAY=0s", "REJOIN_DRAIN_BUDGET=0s")
	a, b := c.nodes[0], c.nodes[1]
	const body = `{"rooms":["x"],"event":"news"}`
	var answered atomic.Int64
	var callers sync.WaitGroup
	for i := range 16 {
		callers.Go(func() { // ends with the node
			for k := 0; ; k++ {
				emit := apiCall{method: "POST", path: "emit", body: body, key: fmt.Sprint(i, "-", k)}
				first, err := a.backend().try(emit)
				answered.Add(1)
				if err == nil && first.status == http.StatusOK {
					continue
				}
				if again := b.backend().do(emit); first.MayHave || again.status != http.StatusOK {
					t.Errorf("%d %s %v, and then %d %s", first.status, first.text, err, again.status, again.text)
				}
				if err != nil {
					return
				}
			}
		})
	}
	a.eventually("asked", func() error {
		if answered.Load() < 100 {
			return errors.New("few calls are answered")
		}
		return nil
	})
	a.term()
	callers.Wait()
	a.restart()
}

// TestAPIRedisUnavailable: without Redis a call fails in bounded time, and can be retried with its key.
func TestAPIRedisUnavailable(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1, withAPI, "REJOIN_REDIS_TIMEOUT=500ms")
	n := c.nodes[0]
	d := startDriver(t)
	ann := d.open("ann", newest, n.url(), transports["websocket"])
	ann.call("join", "x")
	const body = `{"rooms":["x"],"event":"news","args":[1]}`
	n.redis.cut()
	for _, key := range []string{"key", ""} {
		r := n.backend().do(apiCall{method: "POST", path: "emit", body: body, key: key})
		if r.status != http.StatusServiceUnavailable || r.Code != "unavailable" {
			t.Errorf("key %q: %d %s", key, r.status, r.text)
		}
	}
	if r := n.backend().do(apiCall{method: "GET", path: "history?room=x"}); r.status != http.StatusServiceUnavailable || r.MayHave {
		t.Errorf("%d %s", r.status, r.text)
	}
	n.redis.mend()
	n.awaitReady()
	heard := 0
	n.eventually("able to emit", func() error {
		r := n.backend().do(apiCall{method: "POST", path: "emit", body: body, key: "key"})
		if r.status != http.StatusOK {
			return errors.New(r.text)
		}
		return nil
	})
	n.backend().post("emit", `{"rooms":["x"],"event":"end"}`)
	for r := ann.await("event"); r.Event != "end"; r = ann.await("event") {
		heard++
	}
	if heard < 1 || heard > 2 { // the one without a key may have been executed
		t.Errorf("%d events", heard)
	}
}

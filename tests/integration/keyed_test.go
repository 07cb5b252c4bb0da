package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
)

// grace is the time within which a sender gets its answer, in addition to the faults that have struck
// meanwhile. In make test other tests run beside this one, and a node may take seconds to start.
func grace() time.Duration { return lasting(10*time.Second, 3*10*time.Second) }

// A keyedSender publishes numbered events under ids, and repeats each until it has succeeded. So it goes
// on under one name, whatever happens: the witnesses find an event that is missing or duplicated. Each
// event is for two rooms, which may be in two partitions.
type keyedSender struct {
	*fleet
	name  string
	rooms [2]string
	sent  int // events so far
}

// keyedCounts are what the keyed senders of a fleet have done.
type keyedCounts struct {
	calls, onces, retries, repeated atomic.Int64
}

// begin notes that some events are sent, and returns them.
func (s *keyedSender) begin(events int) (args [][]any) {
	for range events {
		args = append(args, []any{s.name, s.rooms[0], s.ledger.start(s.rooms[0], s.name)})
	}
	s.sent += events
	return args
}

func (s *keyedSender) end(events int, since time.Time, last string) {
	for range events {
		s.ledger.ack(s.rooms[0], s.name)
	}
	if took, faults := time.Since(since), s.struck(since); took > faults+grace() {
		s.t.Errorf("%s: event %d was answered after %v, %v of them under faults; the last failure: %s", s.name, s.sent, took, faults, last)
	}
}

// struck returns for how long faults have struck since then.
func (f *fleet) struck(since time.Time) (total time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, g := range f.faults {
		from, to := g.from, g.to
		if to.IsZero() {
			to = time.Now()
		}
		if from.Before(since) {
			from = since
		}
		total += max(0, to.Sub(from))
	}
	return total
}

// until repeats an attempt until it succeeds. The error of an attempt that must not be repeated is final.
func (s *keyedSender) until(try func() (done bool, failure string, final error)) (last string) {
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		done, failure, err := try()
		if err != nil {
			s.t.Errorf("%s: event %d: %v", s.name, s.sent, err)
			return last
		}
		if done || s.t.Context().Err() != nil {
			return last
		}
		last = failure
		s.keyed.retries.Add(1)
		wait(context.Background(), pause)
	}
}

// call makes a keyed call of the API, at any node.
func (s *keyedSender) call(path, key, body string) (done bool, failure string, final error) {
	r, err := http.NewRequest(http.MethodPost, "http://"+s.cluster.roam().inside+"/api/v1/"+path, strings.NewReader(body))
	if err != nil {
		return false, "", err
	}
	r.Header = http.Header{"Authorization": {"Bearer " + apiKey}, "Content-Type": {"application/json"}, "Idempotency-Key": {key}}
	response, err := internalHTTP.Do(r)
	if err != nil {
		return false, err.Error(), nil
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return false, err.Error(), nil
	case response.StatusCode >= 500:
		return false, string(text), nil
	case response.StatusCode != http.StatusOK:
		return false, "", fmt.Errorf("%d %s", response.StatusCode, text)
	case bytes.Contains(text, []byte(`"status":503`)): // an emit of a batch
		return false, string(text), nil
	case bytes.Contains(text, []byte(`"problem"`)):
		return false, "", fmt.Errorf("%s", text)
	}
	if response.Header.Get("Idempotency-Replayed") != "" {
		s.keyed.repeated.Add(1)
	}
	return true, "", nil
}

// backend publishes through the API until the context ends: single events and batches, some of them at two
// nodes concurrently, as a proxy does that repeats a call.
func (s *keyedSender) backend(ctx context.Context, pause time.Duration) {
	for i := 0; ctx.Err() == nil; i++ {
		events, path := 1, "emit"
		if i%4 == 3 {
			events, path = 3, "batch"
		}
		var emits []string
		for _, args := range s.begin(events) {
			emit, err := json.Marshal(map[string]any{"rooms": s.rooms, "event": "n", "args": args})
			if err != nil {
				s.t.Error(err)
				return
			}
			emits = append(emits, string(emit))
		}
		body := emits[0]
		if path == "batch" {
			body = `{"emits":[` + strings.Join(emits, ",") + `]}`
		}
		since, key := time.Now(), fmt.Sprint(s.name, "-", i)
		try := func() (bool, string, error) { return s.call(path, key, body) }
		var twin sync.WaitGroup
		if i%8 == 0 {
			twin.Go(func() { s.until(try) })
		}
		last := s.until(try)
		twin.Wait()
		s.end(events, since, last)
		s.keyed.calls.Add(1)
		wait(ctx, pause)
	}
}

// client publishes inside once through a stock client with retries and ackTimeout until the context ends. Now
// and then its connection is cut.
func (s *keyedSender) client(ctx context.Context, socket *npmSocket, pause time.Duration) {
	for i := 0; ctx.Err() == nil; i++ {
		args := append([]any{"once", fmt.Sprintf("3c1a4e1e-0b7f-4c55-%012d", i), "to", s.rooms, "n"}, s.begin(1)[0]...)
		since := time.Now()
		var cut sync.WaitGroup
		if i%20 == 10 {
			cut.Go(func() { _, _ = socket.driver.do("cut", map[string]any{"socket": socket.name}) })
		}
		last := s.until(func() (bool, string, error) {
			answer, err := socket.driver.do("ask", map[string]any{"socket": socket.name, "args": args})
			if err != nil {
				return false, err.Error(), nil // later than the driver waits
			}
			var got []json.RawMessage // an error or null, and an ack
			var r struct {
				OK, Repeated bool
				Code         string
			}
			if err := json.Unmarshal(answer, &got); err != nil || len(got) < 2 || json.Unmarshal(got[1], &r) != nil {
				return false, string(answer), nil
			}
			if r.Repeated {
				s.keyed.repeated.Add(1)
			}
			if !r.OK && r.Code != "unavailable" && r.Code != "timeout" {
				return false, "", fmt.Errorf("%s", answer)
			}
			return r.OK, string(answer), nil
		})
		cut.Wait()
		s.end(1, since, last)
		s.keyed.onces.Add(1)
		wait(ctx, pause)
	}
}

// pairs begins the names of the rooms under which keyed senders number their events.
const pairs = "pair "

// keyedRooms returns the rooms of a keyed sender, which clients join both.
func keyedRooms(i int) [2]string { return [2]string{fmt.Sprint(pairs, i), fmt.Sprint("twin ", i)} }

// keyedSenders is the number of pairs of rooms, each with a backend and a client that publish in it.
const keyedSenders = 3

// publishKeyed adds keyed senders, which send until the context ends.
func (f *fleet) publishKeyed(ctx context.Context, d *driver, url string, pause time.Duration) {
	for i := range keyedSenders {
		backend := &keyedSender{fleet: f, name: fmt.Sprint("backend-", i), rooms: keyedRooms(i)}
		f.sending.Go(func() { backend.backend(ctx, pause) })
		client := &keyedSender{fleet: f, name: fmt.Sprint("once-", i), rooms: keyedRooms(i)}
		options := with(tokenFor(f.t, client.name, longLived, fleetCan))
		options["retries"], options["ackTimeout"] = 1000, 1000
		socket := d.open(client.name, newest, url, options)
		f.sending.Go(func() { client.client(ctx, socket, 2*pause) })
	}
}

// logKeyed logs what the keyed senders have done.
func (f *fleet) logKeyed() {
	k := &f.keyed
	f.t.Logf("%d keyed calls of backends and %d events inside once; %d attempts failed, %d were repetitions",
		k.calls.Load(), k.onces.Load(), k.retries.Load(), k.repeated.Load())
}

// TestExactlyOnce: keyed calls of backends and events inside once, while nodes and Redis are killed, paused
// and failed over, with or without their newest writes, and slots move. Each is one event for every
// client, unless its history was lost, which every client is told. TestContinuity has some of them, this
// has 10,000 and 2,000, where there is time for it.
func TestExactlyOnce(t *testing.T) {
	if os.Getenv("REJOIN_TEST_CHAOS") == "" {
		t.Skip("REJOIN_TEST_CHAOS is not set")
	}
	for name, start := range map[string]func(f *fleet) []faultKind{
		"one server": func(f *fleet) []faultKind {
			f.cluster = startCluster(f.t, 3, authenticated, withAPI)
			return f.faultKinds()
		},
		"Sentinels": func(f *fleet) []faultKind {
			s := redistest.StartSentinels(f.t)
			f.cluster = startOver(f.t, s.URL(), 3, authenticated, withAPI)
			return f.sentinelFaults(s)
		},
		"Cluster": func(f *fleet) []faultKind {
			c := redistest.StartCluster(f.t)
			f.cluster = startOver(f.t, c.URL(), 3, authenticated, withAPI)
			return f.shardFaults(c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fleet{t: t}
			f.endure(crowd{rooms: 10, clients: 24, stock: 3, publishers: 2, rate: 20, keyed: 10 * time.Millisecond}, chaos(t), start(f), func() bool {
				return f.keyed.calls.Load() >= 10_000 && f.keyed.onces.Load() >= 2_000
			})
			if calls, onces := f.keyed.calls.Load(), f.keyed.onces.Load(); calls < 10_000 || onces < 2_000 {
				t.Errorf("only %d calls and %d events inside once", calls, onces)
			}
		})
	}
}

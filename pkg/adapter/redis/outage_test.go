package redis

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// slack is the delay that a busy machine may add to a deadline. It is less than the delay
// of the faults that the tests detect.
const slack = 4 * time.Second

func TestPublishWhileRedisIsPaused(t *testing.T) {
	const timeout = 1500 * time.Millisecond
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{Timeout: timeout, ProbeInterval: 100 * time.Millisecond})
	subscribe(t, a, room("r"))
	publish(t, a, event("before", room("r")))

	server.Pause()
	defer server.Resume()
	// Calls that arrive while one is in flight wait no longer than that one. A second
	// timeout would double the wait.
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			time.Sleep(time.Duration(i) * timeout / 10)
			began := time.Now()
			_, err := a.Publish(deadline(t), event("lost", room("r")))
			// The first call is sent, those after it wait for its outcome.
			known := errors.Is(err, adapter.ErrUnavailable) || errors.Is(err, adapter.ErrNotPublished)
			if took := time.Since(began); !known || took > timeout*9/5 {
				t.Errorf("Publish %d while Redis is paused: %v after %v, want ErrUnavailable or ErrNotPublished after %v", i, err, took, timeout)
			}
		})
	}
	all.Wait()
	// By now Redis has been unavailable for longer than that.
	began := time.Now()
	if _, err := a.Publish(deadline(t), event("lost", room("r"))); !errors.Is(err, adapter.ErrNotPublished) || time.Since(began) > timeout*4/5 {
		t.Errorf("Publish once Redis is known to be away: %v after %v, want ErrNotPublished", err, time.Since(began))
	}
	if a.Ready() == nil {
		t.Error("the node is ready although Redis is paused")
	}
	server.Resume()
	eventually(t, "the node is ready", func() bool { return a.Ready() == nil })
	publish(t, a, event("after", room("r")))
	for e := (adapter.Event{}); string(e.Data) != "after"; {
		var err error
		if e, err = a.Next(deadline(t)); err != nil {
			t.Fatal(err)
		}
	}
}

// Every call ends with its context, and with the adapter, in any state of Redis.
func TestCallsEndWithTheirContextWhileRedisIsDown(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{Timeout: 10 * time.Second, ProbeInterval: 100 * time.Millisecond})
	joined := subscribe(t, a, room("r"))
	server.Pause()
	defer server.Resume()

	call := func(ctx context.Context, ends string, end func(), want error) {
		calls := map[string]func() error{
			"Publish": func() error {
				_, err := a.Publish(ctx, event("x", room("r")))
				if !errors.Is(err, adapter.ErrUnavailable) && !errors.Is(err, adapter.ErrNotPublished) {
					t.Errorf("Publish: %v, want ErrUnavailable or ErrNotPublished", err)
				}
				return err
			},
			"Subscribe": func() error { _, err := a.Subscribe(ctx, room("s")); return err },
			"Head":      func() error { _, err := a.Head(ctx); return err },
			"History":   func() error { _, _, err := a.History(ctx, room("r"), adapter.Page{Events: 1}); return err },
			"Send":      func() error { return a.Send(ctx, "b", adapter.Message{}) },
			"Address":   func() error { _, err := a.Address(ctx, "z", ""); return err },
			"Next":      func() error { _, err := a.Next(ctx); return err },
			"Receive":   func() error { _, err := a.Receive(ctx); return err },
			"Replay": func() (err error) {
				upTo := joined
				upTo.At.Ms++
				for _, err = range a.Replay(ctx, map[rooms.Room]adapter.Cursor{room("r"): joined}, upTo, 0) {
				}
				return err
			},
		}
		type ended struct {
			name string
			err  error
		}
		all := make(chan ended, len(calls))
		for name, call := range calls {
			go func() { all <- ended{name, call()} }()
		}
		time.Sleep(200 * time.Millisecond) // into the calls
		end()
		late := time.After(slack)
		for range len(calls) {
			select {
			case e := <-all:
				delete(calls, e.name)
				if !errors.Is(e.err, want) {
					t.Errorf("%s when %s: %v, want %v", e.name, ends, e.err, want)
				}
			case <-late:
				for name := range calls {
					t.Errorf("%s did not end when %s", name, ends)
				}
				return
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	call(ctx, "its context ended", cancel, context.Canceled)
	began := time.Now()
	call(t.Context(), "the adapter was closed", func() { _ = a.Close() }, adapter.ErrClosed)
	if took := time.Since(began); took > time.Second+200*time.Millisecond+slack {
		t.Errorf("Close took %v, want at most %v", took, time.Second+200*time.Millisecond+slack)
	}
}

// Close at any moment leaves no goroutine; goleak checks that.
func TestCloseWhileConnecting(t *testing.T) {
	server := redistest.Start(t)
	for _, pause := range []bool{false, true} {
		for delay := time.Duration(0); delay < 40*time.Millisecond; delay += 4 * time.Millisecond {
			ctx, cancel := context.WithTimeout(t.Context(), delay)
			if pause {
				server.Pause()
			}
			began := time.Now()
			a, err := New(ctx, options(t, server.URL(), "a", Options{Timeout: patience}))
			if took := time.Since(began); err != nil && took > delay+time.Second+slack {
				t.Errorf("New took %v with a context of %v: %v", took, delay, err)
			}
			if err == nil {
				_ = a.Close()
			}
			cancel()
			if pause {
				server.Resume()
			}
		}
	}
}

func TestStartWithoutRedis(t *testing.T) {
	server := redistest.Start(t)
	server.Kill()
	joined := make(chan error, 1)
	o := options(t, server.URL(), "a", Options{Timeout: 200 * time.Millisecond})
	go func() {
		a, err := New(deadline(t), o)
		if err == nil {
			err = a.Close()
		}
		joined <- err
	}()
	select {
	case err := <-joined:
		t.Fatalf("New without Redis: %v, although its context has not ended", err)
	case <-time.After(600 * time.Millisecond):
	}
	server.Restart()
	if err := <-joined; err != nil {
		t.Errorf("New once Redis is there: %v", err)
	}
}

func TestMemoryLimit(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{ProbeInterval: 100 * time.Millisecond})
	joined := subscribe(t, a, room("r"))
	publish(t, a, event("1", room("r")))
	set := func(limit string) {
		if err := server.Client().ConfigSet(t.Context(), "maxmemory", limit).Err(); err != nil {
			t.Fatal(err)
		}
	}
	set("1mb")
	_, err := a.Publish(deadline(t), event("refused", room("r")))
	if !errors.Is(err, adapter.ErrNotPublished) || errors.Is(err, adapter.ErrUnavailable) || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("Publish without memory: %v: it should say so, and that nothing was published", err)
	}
	eventually(t, "the node is not ready", func() bool { return a.Ready() != nil })
	set("0")
	eventually(t, "the node is ready", func() bool { return a.Ready() == nil })
	head := publish(t, a, event("2", room("r")))
	expect(t, a, "1", "2")
	n := 0
	for _, err := range a.Replay(deadline(t), map[rooms.Room]adapter.Cursor{room("r"): joined}, head, 0) {
		if n++; err != nil {
			t.Fatal(err)
		}
	}
	if n != 2 {
		t.Errorf("got %d events in the replay, want 2", n)
	}
}

package queue

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Each writer's items come out in its order, and none is lost or duplicated.
func TestConcurrentWriters(t *testing.T) {
	const writers, each = 8, 1000
	q := New[[2]int](writers*each, 1<<30)
	for w := range writers {
		go func() {
			for i := range each {
				q.Put([2]int{w, i}, 1)
			}
		}()
	}
	var next [writers]int
	for range writers * each {
		v, err := q.Take(t.Context(), context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if v[1] != next[v[0]] {
			t.Fatalf("item %d of writer %d, want %d", v[1], v[0], next[v[0]])
		}
		next[v[0]]++
	}
}

// Take returns each item that was put and not discarded, in order. Full and Space report
// the distance of the items in the queue from the limits.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		maxItems, maxBytes := rapid.IntRange(1, 5).Draw(t, "items"), rapid.IntRange(1, 20).Draw(t, "bytes")
		q := New[int](maxItems, maxBytes)
		var waiting, taken []int // the items of the writers, and the part of them that the reader has taken
		var space []<-chan struct{}
		put, bytes := 0, 0
		emptied := func() {
			for _, c := range space {
				select {
				case <-c:
				default:
					t.Fatal("a writer is not told that there is space")
				}
			}
			bytes, space = 0, nil
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				size := rapid.IntRange(0, 8).Draw(t, "size")
				q.Put(put, size)
				waiting, bytes = append(waiting, put), bytes+size
				put++
			},
			"take": func(t *rapid.T) {
				if len(taken) == 0 {
					if len(waiting) == 0 {
						t.Skip("it would wait")
					}
					taken, waiting = waiting, nil
					defer emptied()
				}
				v, err := q.Take(context.Background(), context.Background())
				if err != nil || v != taken[0] {
					t.Fatalf("took %d, %v, want %d", v, err, taken[0])
				}
				taken = taken[1:]
			},
			"discard": func(*rapid.T) {
				q.Discard()
				waiting = nil
				emptied()
			},
			"full": func(t *rapid.T) {
				c := q.Full()
				if full := len(waiting) >= maxItems || bytes >= maxBytes; (c != nil) != full {
					t.Fatalf("full is %v, want %v: %d items, %d bytes", c != nil, full, len(waiting), bytes)
				}
				if c != nil {
					space = append(space, c)
				}
				if items, size := q.Space(); items != maxItems-len(waiting) || size != maxBytes-bytes {
					t.Fatalf("space for %d items and %d bytes, with %d and %d queued, want %d, %d", items, size, len(waiting), bytes, maxItems-len(waiting), maxBytes-bytes)
				}
			},
		})
	})
}

// A reader that waits is woken by an item, by the end of its context, and by the owner.
// After one of the latter two it takes nothing.
func TestTakeWaits(t *testing.T) {
	cause, closed := errors.New("the cause"), errors.New("closed")
	for name, tt := range map[string]struct {
		wake func(q *Queue[int], end, done context.CancelCauseFunc)
		want error
	}{
		"by an item":         {func(q *Queue[int], _, _ context.CancelCauseFunc) { q.Put(7, 1) }, nil},
		"by its context":     {func(_ *Queue[int], end, _ context.CancelCauseFunc) { end(cause) }, cause},
		"by the owner":       {func(_ *Queue[int], _, done context.CancelCauseFunc) { done(closed) }, closed},
		"by both, and late":  {func(q *Queue[int], end, _ context.CancelCauseFunc) { end(cause); q.Put(7, 1) }, cause},
		"not by a discarded": {func(q *Queue[int], _, _ context.CancelCauseFunc) { q.Put(6, 1); q.Discard(); q.Put(7, 1) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := New[int](10, 10)
				ctx, end := context.WithCancelCause(t.Context())
				defer end(nil)
				owner, done := context.WithCancelCause(t.Context())
				defer done(nil)
				type result struct {
					v   int
					err error
				}
				took := make(chan result, 1)
				go func() {
					v, err := q.Take(ctx, owner)
					took <- result{v, err}
				}()
				synctest.Wait()
				select {
				case r := <-took:
					t.Fatalf("it does not wait: %+v", r)
				default:
				}
				tt.wake(q, end, done)
				synctest.Wait()
				select {
				case r := <-took:
					if !errors.Is(r.err, tt.want) || tt.want == nil && r.v != 7 {
						t.Errorf("took %+v, want 7 or %v", r, tt.want)
					}
				default:
					t.Error("it still waits")
				}
			})
		})
	}
}

package batch

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A known is the model's state of one request.
type known struct {
	r      *Request[int, int]
	cancel context.CancelFunc
	result chan error // of Wait
	answer int

	queued, taken, begun bool
	withdrawn, canceled  bool
	returned             bool // from Wait
}

// TestModel compares a queue with its model: which requests are taken, in which order, which may begin,
// and which single result each caller gets.
func TestModel(t *testing.T) {
	rapid.Check(t, model)
}

func model(t *rapid.T) {
	maxItems, maxBytes := rapid.IntRange(1, 6).Draw(t, "items"), rapid.IntRange(1, 30).Draw(t, "bytes")
	owner, end := context.WithCancelCause(context.Background())
	q := New[int, int](owner, Options{MaxItems: maxItems, MaxBytes: maxBytes})
	var all []*known
	pending := func() (items, bytes int) {
		for _, k := range all {
			if k.queued {
				items, bytes = items+1, bytes+k.r.Size
			}
		}
		return items, bytes
	}
	pick := func(t *rapid.T, of func(*known) bool) *known {
		var some []*known
		for _, k := range all {
			if of(k) {
				some = append(some, k)
			}
		}
		if len(some) == 0 {
			t.Skip("none")
		}
		return rapid.SampledFrom(some).Draw(t, "request")
	}
	// told makes sure that Wait has returned with an answer, or with a cause and whether the request
	// had begun.
	told := func(t *rapid.T, k *known, cause error, begun bool) {
		select {
		case err := <-k.result:
			if !errors.Is(err, cause) || Begun(err) != begun {
				t.Fatalf("the caller of %d is told %v, begun %v, want %v, begun %v", k.r.Value, err, Begun(err), cause, begun)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("the caller of %d still waits, want %v", k.r.Value, cause)
		}
		k.returned, k.queued = true, false
	}
	taken := func(k *known) bool { return k.taken }
	t.Repeat(map[string]func(*rapid.T){
		"put": func(t *rapid.T) {
			size := rapid.IntRange(0, 12).Draw(t, "size")
			items, bytes := pending()
			ctx, cancel := context.WithCancel(context.Background())
			r, err := q.Put(ctx, len(all), size)
			switch {
			case owner.Err() != nil:
				if !errors.Is(err, errEnded) {
					t.Fatalf("Put after the owner's end: %v, want errEnded", err)
				}
			case items >= maxItems || bytes >= maxBytes:
				if !errors.Is(err, ErrFull) {
					t.Fatalf("Put with %d of %d items and %d of %d bytes: %v", items, maxItems, bytes, maxBytes, err)
				}
			case err != nil:
				t.Fatalf("Put: %v", err)
			}
			if err != nil {
				cancel()
				return
			}
			k := &known{r: r, cancel: cancel, result: make(chan error, 2), queued: true}
			all = append(all, k)
			go func() {
				a, err := r.Wait()
				if err == nil && a != k.answer {
					err = errors.New("another answer")
				}
				k.result <- err
			}()
		},
		"cancel": func(t *rapid.T) {
			k := pick(t, func(k *known) bool { return !k.returned })
			k.cancel()
			k.canceled, k.withdrawn = true, !k.begun
			told(t, k, context.Canceled, k.begun)
		},
		"take": func(t *rapid.T) {
			limit := rapid.IntRange(1, 4).Draw(t, "limit")
			var want []*Request[int, int]
			for _, k := range all {
				if k.queued && len(want) < limit {
					want = append(want, k.r)
					k.queued, k.taken = false, true
				}
			}
			if got := q.next(func(n int, _ *Request[int, int]) bool { return n < limit }); !slices.Equal(got, want) {
				t.Fatalf("%d requests are taken, want %d, or in another order", len(got), len(want))
			}
		},
		"begin": func(t *rapid.T) {
			k := pick(t, taken)
			want := k.begun || !k.withdrawn && !k.canceled
			if got := k.r.Begin(); got != want {
				t.Fatalf("Begin: %v, want %v", got, want)
			}
			k.begun = want
		},
		"revert": func(t *rapid.T) {
			if owner.Err() != nil {
				t.Skip("whether a caller has noticed the end before this is not known")
			}
			k := pick(t, taken)
			k.r.Revert()
			k.begun = false
		},
		"answer": func(t *rapid.T) {
			k := pick(t, taken)
			if !k.returned {
				k.answer = rapid.IntRange(1, 100).Draw(t, "answer")
			}
			if k.r.Answer(k.answer, nil); !k.returned {
				told(t, k, nil, false)
			}
		},
		"fail": func(t *rapid.T) {
			k := pick(t, taken)
			cause := errors.New("failed")
			if k.r.Fail(cause); !k.returned {
				told(t, k, cause, k.begun)
			}
		},
		"end": func(t *rapid.T) {
			if rapid.IntRange(0, 9).Draw(t, "rarely") > 0 {
				t.Skip("not now")
			}
			end(errEnded)
			for _, k := range all {
				if !k.returned && !k.begun {
					k.withdrawn = true
					told(t, k, errEnded, false)
				}
			}
		},
		"": func(t *rapid.T) {
			items, bytes := pending()
			if gotItems, gotBytes := q.Pending(); gotItems != items || gotBytes != bytes {
				t.Fatalf("%d requests of %d bytes wait, want %d of %d", gotItems, gotBytes, items, bytes)
			}
			for _, k := range all {
				select {
				case err := <-k.result:
					t.Fatalf("the caller of %d is told %v", k.r.Value, err)
				default:
				}
			}
		},
	})
	end(errEnded)
	for _, k := range all {
		k.cancel()
		if !k.returned {
			<-k.result
		}
	}
}

package batch

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errEnded = errors.New("the owner has ended")

// newQueue returns a queue and a function that ends its owner.
func newQueue(t *testing.T, o Options) (*Queue[int, int], context.CancelFunc) {
	t.Helper()
	owner, end := context.WithCancelCause(t.Context())
	t.Cleanup(func() { end(errEnded) })
	return New[int, int](owner, o), func() { end(errEnded) }
}

func put(t *testing.T, q *Queue[int, int], v, size int) *Request[int, int] {
	t.Helper()
	r, err := q.Put(t.Context(), v, size)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Each caller gets the answer to its own request, regardless of the goroutine that executes
// it.
func TestConcurrentCallers(t *testing.T) {
	const callers, each, servers = 32, 200, 3
	q, end := newQueue(t, Options{Patience: time.Minute})
	var serving, calling sync.WaitGroup
	for range servers {
		serving.Go(func() {
			q.Serve(func(n int, _ *Request[int, int]) bool { return n < 7 }, func(all []*Request[int, int]) {
				for _, r := range all {
					if r.Begin() {
						r.Answer(-r.Value, nil)
						r.Answer(0, errors.New("a second answer")) // has no effect
					}
				}
			})
		})
	}
	for c := range callers {
		calling.Go(func() {
			for i := range each {
				ctx, cancel := context.WithCancel(t.Context())
				if i%5 == 0 {
					go cancel()
				}
				v := c*each + i
				a, err := q.Do(ctx, v, 1)
				if err == nil && a != -v || err != nil && (i%5 != 0 || !errors.Is(err, context.Canceled)) {
					t.Errorf("Do(%d): %d, %v", v, a, err)
				}
				cancel()
			}
		})
	}
	calling.Wait()
	end()
	serving.Wait()
	if items, bytes := q.Pending(); items != 0 || bytes != 0 {
		t.Errorf("%d requests of %d bytes are left, want 0, 0", items, bytes)
	}
}

// One batch at a time, in the order of arrival: the requests that fit, or one request that
// fits in no batch.
func TestBatches(t *testing.T) {
	for name, tt := range map[string]struct {
		sizes []int
		max   int // of a batch; none if 0
		want  [][]int
	}{
		"All":           {[]int{3, 1, 9}, 0, [][]int{{3, 1, 9}}},
		"Fit":           {[]int{3, 1, 2, 2, 2}, 4, [][]int{{3, 1}, {2, 2}, {2}}},
		"TooLarge":      {[]int{9, 1, 9, 9, 4}, 4, [][]int{{9}, {1}, {9}, {9}, {4}}},
		"NotOvertaking": {[]int{3, 3, 1}, 4, [][]int{{3}, {3, 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			q, end := newQueue(t, Options{})
			for _, size := range tt.sizes {
				put(t, q, size, size)
			}
			sum := 0
			fits := func(n int, r *Request[int, int]) bool {
				if n == 0 {
					sum = 0
				}
				sum += r.Size
				return sum <= tt.max
			}
			if tt.max == 0 {
				fits = nil
			}
			var got [][]int
			q.Serve(fits, func(all []*Request[int, int]) {
				var sizes []int
				for _, r := range all {
					sizes = append(sizes, r.Value)
				}
				if got = append(got, sizes); len(slices.Concat(got...)) == len(tt.sizes) {
					end()
				}
			})
			if !slices.EqualFunc(got, tt.want, slices.Equal) {
				t.Errorf("batches %v, want %v", got, tt.want)
			}
		})
	}
}

// Requests that do not fit wake another serving goroutine while the first one executes.
func TestRemainingRequestsWakeAnotherCaller(t *testing.T) {
	q, _ := newQueue(t, Options{})
	put(t, q, 1, 0)
	put(t, q, 2, 0)
	for _, rest := range []int{1, 0} {
		<-q.ready // it wakes one
		if all := q.next(func(int, *Request[int, int]) bool { return false }); len(all) != 1 || len(q.ready) != rest {
			t.Errorf("%d requests are taken, and %d others are woken, want 1 and %d", len(all), len(q.ready), rest)
		}
	}
}

// Every caller gets an answer, even if its request is not answered or the execution panics.
func TestUnansweredRequestsFail(t *testing.T) {
	for name, execute := range map[string]func([]*Request[int, int]){
		"Forgotten": func(all []*Request[int, int]) { all[0].Answer(7, nil) },
		"Panic": func(all []*Request[int, int]) {
			all[0].Answer(7, nil)
			panic(errEnded)
		},
	} {
		t.Run(name, func(t *testing.T) {
			q, end := newQueue(t, Options{})
			answered, forgotten := put(t, q, 1, 1), put(t, q, 2, 1)
			func() {
				defer func() {
					if p := recover(); (p != nil) != (name == "Panic") {
						t.Errorf("Serve panics with %v", p)
					}
				}()
				q.Serve(nil, func(all []*Request[int, int]) {
					end()
					all[1].Begin()
					execute(all)
				})
			}()
			if a, err := answered.Wait(); a != 7 || err != nil {
				t.Errorf("the answered request: %d, %v, want 7", a, err)
			}
			if _, err := forgotten.Wait(); !errors.Is(err, errUnanswered) || !Begun(err) {
				t.Errorf("the forgotten request: %v", err)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	for name, tt := range map[string]struct {
		options Options
		sizes   []int // that fit
	}{
		"Items": {Options{MaxItems: 2}, []int{9, 9}},
		"Bytes": {Options{MaxBytes: 10}, []int{9, 9}}, // the last one may exceed it
		"Exact": {Options{MaxBytes: 18}, []int{9, 9}},
		"None":  {Options{MaxItems: 100}, slices.Repeat([]int{1 << 30}, 100)},
	} {
		t.Run(name, func(t *testing.T) {
			q, _ := newQueue(t, tt.options)
			var all []*Request[int, int]
			for i, size := range tt.sizes {
				all = append(all, put(t, q, i, size))
			}
			if _, err := q.Put(t.Context(), 0, 0); !errors.Is(err, ErrFull) {
				t.Errorf("Put into a full queue: %v, want ErrFull", err)
			}
			if _, err := q.Do(t.Context(), 0, 0); !errors.Is(err, ErrFull) {
				t.Errorf("Do with a full queue: %v, want ErrFull", err)
			}
			q.leave(all[0])
			put(t, q, 0, 1)
		})
	}
}

// Withdrawn requests do not occupy the queue.
func TestWithdrawnRequestsTakeNoSpace(t *testing.T) {
	q, _ := newQueue(t, Options{MaxItems: 10})
	kept := put(t, q, 7, 1)
	for range 1000 {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := q.Put(ctx, 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := r.Wait(); !errors.Is(err, context.Canceled) || Begun(err) {
			t.Fatalf("Wait: %v", err)
		}
		if len(q.pending) > 4 {
			t.Fatalf("%d requests are kept for one that waits, want at most 4", len(q.pending))
		}
	}
	if items, bytes := q.Pending(); items != 1 || bytes != 1 {
		t.Errorf("%d requests of %d bytes wait, want 1, 1", items, bytes)
	}
	if all := q.next(nil); len(all) != 1 || all[0] != kept {
		t.Errorf("%d requests are taken", len(all))
	}
}

// An ended request is neither taken nor begun, even if its caller has not noticed yet.
func TestEndedRequests(t *testing.T) {
	q, _ := newQueue(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	r, err := q.Put(ctx, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	q.next(nil)
	pending, err := q.Put(ctx, 2, 1)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if r.Begin() {
		t.Error("the request begins")
	}
	if all := q.next(nil); len(all) > 0 {
		t.Error("the pending request is taken")
	}
	for _, r := range []*Request[int, int]{r, pending} {
		if _, err := r.Wait(); !errors.Is(err, context.Canceled) || Begun(err) {
			t.Errorf("Wait of request %d: %v", r.Value, err)
		}
	}
	if items, bytes := q.Pending(); items != 0 || bytes != 0 {
		t.Errorf("%d requests of %d bytes wait, want 0, 0", items, bytes)
	}
}

// A caller waits no longer than its patience, and knows whether its request had begun.
func TestPatience(t *testing.T) {
	for name, begins := range map[string]bool{"Waiting": false, "Begun": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, _ := newQueue(t, Options{Patience: time.Second})
				for range 2 { // the second one with the timer of the first
					began := time.Now()
					r := put(t, q, 1, 1)
					if begins {
						q.next(nil)
						r.Begin()
					}
					_, err := r.Wait()
					if took := time.Since(began); !errors.Is(err, ErrLate) || Begun(err) != begins || took != time.Second {
						t.Errorf("Wait: %v after %v, begun: %v, want ErrLate, %v, %v", err, took, Begun(err), time.Second, begins)
					}
					if r.Begin() != begins {
						t.Errorf("the request of a caller that has gone begins: %v", !begins)
					}
				}
				late := put(t, q, 1, 1)
				time.Sleep(time.Second / 2)
				others := []*Request[int, int]{put(t, q, 2, 1), put(t, q, 3, 1)}
				_, _ = late.Wait()
				if all := q.next(nil); !slices.Equal(all, others) {
					t.Errorf("%d requests are taken, want those of the two that still wait", len(all))
				}
			})
		})
	}
}

// When the owner ends, pending requests are refused, and requests in execution get their
// answers.
func TestOwnerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, end := newQueue(t, Options{})
		begun, taken := put(t, q, 1, 1), put(t, q, 2, 1)
		pending := put(t, q, 3, 1)
		release := make(chan struct{})
		var serving sync.WaitGroup
		serving.Go(func() {
			q.Serve(func(n int, _ *Request[int, int]) bool { return n < 2 }, func(all []*Request[int, int]) {
				all[0].Begin()
				<-release
				all[0].Answer(10, nil)
				if all[1].Begin() {
					t.Error("a request begins that was refused")
				}
			})
		})
		synctest.Wait()
		end()
		for _, r := range []*Request[int, int]{taken, pending} {
			if _, err := r.Wait(); !errors.Is(err, errEnded) || Begun(err) {
				t.Errorf("Wait of request %d: %v", r.Value, err)
			}
		}
		if _, err := q.Put(t.Context(), 4, 1); !errors.Is(err, errEnded) {
			t.Errorf("Put: %v, want errEnded", err)
		}
		close(release)
		if a, err := begun.Wait(); a != 10 || err != nil {
			t.Errorf("Wait of the request that has begun: %d, %v, want 10", a, err)
		}
		serving.Wait()
	})
}

// An existing answer takes precedence over the end of the wait.
func TestAnswerPrecedesTheEnd(t *testing.T) {
	for range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		q, end := newQueue(t, Options{})
		r, err := q.Put(ctx, 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		q.next(nil)
		r.Answer(5, nil)
		cancel()
		end()
		if a, err := r.Wait(); a != 5 || err != nil {
			t.Fatalf("Wait: %d, %v, want 5", a, err)
		}
	}
}

func BenchmarkDo(b *testing.B) {
	owner, end := context.WithCancel(b.Context())
	q := New[[8]uint64, int](owner, Options{MaxItems: 1 << 10, MaxBytes: 1 << 20, Patience: time.Minute})
	var serving sync.WaitGroup
	serving.Go(func() {
		q.Serve(nil, func(all []*Request[[8]uint64, int]) {
			for _, r := range all {
				r.Answer(1, nil)
			}
		})
	})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := q.Do(b.Context(), [8]uint64{}, 1); err != nil {
			b.Fatal(err)
		}
	}
	end()
	serving.Wait()
}

// A request that is answered without an error was executed, even if the owner ends at that moment.
// Requests that have begun are executed before all are answered.
func TestNoAnswerWithoutExecution(t *testing.T) {
	for range 3000 {
		q, end := newQueue(t, Options{})
		r := put(t, q, 1, 0)
		executed, taken := false, make(chan struct{})
		var serving sync.WaitGroup
		serving.Go(func() {
			q.Serve(nil, func(all []*Request[int, int]) {
				close(taken)
				runtime.Gosched()
				executed = all[0].Begin()
				all[0].Answer(1, nil)
			})
		})
		<-taken
		go end()
		_, err := r.Wait()
		end()
		serving.Wait()
		if err == nil && !executed {
			t.Fatal("answered without an error, and not executed")
		}
	}
}

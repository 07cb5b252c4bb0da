package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestPace(t *testing.T) {
	const timeout = 3 * time.Second
	late, broken := fmt.Errorf("late: %w", context.DeadlineExceeded), errors.New("broken")
	for _, tt := range []struct {
		name           string
		size           int // before the call; 0 if the line is not slow
		page, received int
		took           time.Duration
		err            error
		want           int
		again          bool
	}{
		{"fast", 0, sharedBytes, 1 << 20, time.Millisecond, nil, 0, false},
		{"in time", 0, sharedBytes, 8 << 20, 2 * time.Second, nil, 0, false},
		{"late", 0, sharedBytes, 4 << 20, timeout, late, 1 << 20, true},
		{"late, of several", 0, sharedBytes, 100_000, timeout, late, 25_000, true},
		{"late, and was adapted meanwhile", 25_000, sharedBytes, 100_000, timeout, late, 25_000, true},
		{"late without an answer", 0, sharedBytes, 100, timeout, late, 0, false},
		{"failed", 0, sharedBytes, 4 << 20, time.Second, broken, 0, false},
		{"late again", 1 << 20, 1 << 20, 4 << 20, timeout, late, 512 << 10, true},
		{"late with little", 30_000, 30_000, 20_000, timeout, late, leastPage, true},
		{"late with the least", leastPage, leastPage, 200_000, timeout, late, leastPage, false},
		{"slow but in time", 100_000, 100_000, 100_000, time.Second, nil, 100_000, false},
		{"fast again", 100_000, 100_000, 100_000, 50 * time.Millisecond, nil, 800_000, false},
		{"fast with little", 100_000, 100_000, 10_000, time.Millisecond, nil, 100_000, false},
		{"fast as a whole", 8 << 20, 8 << 20, 1 << 20, 50 * time.Millisecond, nil, 0, false},
	} {
		p := &pace{timeout: timeout, size: tt.size}
		if again := p.note(tt.page, tt.received, tt.took, tt.err); again != tt.again || p.size != tt.want {
			t.Errorf("%s: %d, again: %v, want %d, %v", tt.name, p.size, again, tt.want, tt.again)
		}
	}
	p := &pace{timeout: timeout, size: leastPage, slowed: time.Now().Add(-11 * timeout)}
	if page := p.page(); page != sharedBytes {
		t.Errorf("long after the last slow call a page has %d bytes, want %d", page, sharedBytes)
	}
}

// A catch-up on a slow line gives up its turn after a call, but keeps it for as long as it had to wait:
// recoveries read whole backlogs in theirs, and it would not end beside many of them.
func TestTurnsOfACatchUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout, others = 5 * time.Second, 2 * time.Second
		p := &pace{timeout: timeout, turns: make(chan struct{}, 1), size: leastPage, slowed: time.Now()}
		r := &pacedRead{pace: p, batch: []*backlogRequest{{ctx: t.Context(), catchUp: true}}}
		call := func() (took time.Duration) {
			began := time.Now()
			if err := r.call(t.Context(), func(int) error { time.Sleep(100 * time.Millisecond); return nil }); err != nil {
				t.Fatal(err)
			}
			return time.Since(began)
		}
		call()
		if r.turn {
			t.Error("it keeps its turn although nobody has kept it waiting")
		}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		defer all.Wait()
		all.Go(func() { // recoveries
			for ctx.Err() == nil {
				p.turns <- struct{}{}
				time.Sleep(others)
				<-p.turns
			}
		})
		synctest.Wait()
		began, n := time.Now(), 0
		for ; time.Since(began) < 40*time.Second; n++ {
			call()
		}
		if n < 150 {
			t.Errorf("%d calls of 0.1 s in 40 s, want about half of the time", n)
		}
		cancel()
		r.end()
	})
}

package limit

import (
	"context"
	"errors"
	"time"
)

// The maximum number of concurrent reads of each kind on a node. A page of history takes memory,
// and some milliseconds of Redis; a list of members takes the work of many nodes, and seconds if
// one of them does not answer.
const (
	concurrentHistory = 4
	concurrentMembers = 16
)

// ErrBusy means that the maximum number of concurrent reads has been reached for some seconds.
var ErrBusy = errors.New("too many reads on this node, try again later")

// running counts a node's concurrent reads from other parts of the cluster, by kind. All methods
// are safe for concurrent use.
type running struct {
	kinds map[string]chan struct{}
	wait  time.Duration
	tally *Tally
}

func newRunning(t *Tally) *running {
	return &running{
		kinds: map[string]chan struct{}{
			"history": make(chan struct{}, concurrentHistory),
			"members": make(chan struct{}, concurrentMembers),
		},
		wait:  readWait,
		tally: t,
	}
}

// enter waits until one more read of a kind may run; leave ends it. It returns ErrBusy after some
// seconds.
func (r *running) enter(ctx context.Context, kind string) (leave func(), err error) {
	slots := r.kinds[kind]
	if slots == nil {
		return func() {}, nil
	}
	leave = func() { <-slots }
	select {
	case slots <- struct{}{}:
		return leave, nil
	default:
	}
	timer := time.NewTimer(r.wait)
	defer timer.Stop()
	select {
	case slots <- struct{}{}:
		return leave, nil
	case <-timer.C:
		r.tally.count(ConcurrentReads)
		return nil, ErrBusy
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

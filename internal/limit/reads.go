package limit

import (
	"context"
	"errors"
	"time"
)

// How many reads of a kind a node runs concurrently. A page of history takes memory, and
// some milliseconds of Redis; a list of members takes the work of many nodes, and
// seconds if one of them does not answer.
const (
	concurrentHistory = 4
	concurrentMembers = 16
	readWait          = 3 * time.Second
)

// ErrBusy: as many reads as may run concurrently have run for some seconds.
var ErrBusy = errors.New("too many reads on this node, try again later")

// Reads limit how many reads of other parts of the cluster a node runs concurrently, by
// kind. All methods are safe for concurrent use.
type Reads struct {
	running map[string]chan struct{}
	wait    time.Duration
	refused counter
}

// NewReads returns the limits of a node for the kinds "history" and "members".
func NewReads() *Reads {
	return &Reads{
		running: map[string]chan struct{}{
			"history": make(chan struct{}, concurrentHistory),
			"members": make(chan struct{}, concurrentMembers),
		},
		wait:    readWait,
		refused: counter{name: ConcurrentReads},
	}
}

// Enter waits until one more read of a kind may run, which ends with a call of leave. It
// returns ErrBusy after some seconds.
func (r *Reads) Enter(ctx context.Context, kind string) (leave func(), err error) {
	running := r.running[kind]
	if running == nil {
		return func() {}, nil
	}
	leave = func() { <-running }
	select {
	case running <- struct{}{}:
		return leave, nil
	default:
	}
	timer := time.NewTimer(r.wait)
	defer timer.Stop()
	select {
	case running <- struct{}{}:
		return leave, nil
	case <-timer.C:
		r.refused.n.Add(1)
		return nil, ErrBusy
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Refused returns how many reads were refused.
func (r *Reads) Refused() map[string]uint64 { return counts(&r.refused) }

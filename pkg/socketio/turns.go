package socketio

import (
	"context"
	"runtime"
	"sync"
)

// turnRooms is the number of rooms from which a socket takes a turn to enter or leave all of them,
// and to write its session.
const turnRooms = 200

// turns bounds the number of sockets with many rooms that work concurrently. Entering or leaving
// all rooms takes milliseconds of CPU time, and writing the session takes some tenths of a
// millisecond in the node and in Redis. Without a bound other sockets would wait for many of
// them.
type turns chan struct{}

func newTurns() turns { return make(turns, max(1, runtime.GOMAXPROCS(0)/2)) }

// take waits for a turn, unless there are few rooms. ended may be called more than once, also after
// an error.
func (t turns) take(ctx context.Context, rooms int) (ended func(), err error) {
	if rooms < turnRooms {
		return func() {}, nil
	}
	select {
	case t <- struct{}{}:
		return sync.OnceFunc(func() { <-t }), nil
	case <-ctx.Done():
		return func() {}, context.Cause(ctx)
	}
}

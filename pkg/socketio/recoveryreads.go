package socketio

import (
	"context"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A RecoveryLimit bounds the bytes that the recoveries of several clients read together, beyond the
// allowance of each session. Its methods are called concurrently and must not block.
type RecoveryLimit interface {
	// Charge counts bytes that have been read, whether the limit allows them or not.
	Charge(bytes int)
	// Wait returns the time until more may be read; 0 means immediately.
	Wait() time.Duration
}

// recoveryRead is the number of bytes of missed events that count as one more recovery.
const recoveryRead = 10 << 10

// readPatience bounds the total wait of a recovery for permission to read. Meanwhile its client can
// neither join nor leave rooms, and acks wait for the missed events; and events published meanwhile
// must be sent, too.
const readPatience = 5 * time.Second

// readsAgain is the interval at which a waiting recovery checks the limit again.
const readsAgain = 250 * time.Millisecond

// findLimit asks the application for the limit that the client shares with others.
func (r *recovery) findLimit() {
	srv := r.socket.ns.srv
	if r.maxWait = srv.replays.patience; srv.opts.RecoveryLimit != nil {
		srv.guard("RecoveryLimit", func() { r.limit = srv.opts.RecoveryLimit(r.request) })
	}
}

// count returns a context whose reads of missed events are charged to the session, and beyond its
// pace to the limit that its client shares.
func (r *recovery) count(ctx context.Context) context.Context {
	srv, back, unit := r.socket.ns.srv, r.back, r.unit()
	return adapter.OnRead(ctx, func(bytes int) {
		more := time.Duration(float64(bytes) * unit)
		if beyond := srv.recoveries.add(r.pid, time.Now(), more, back); beyond > 0 && r.limit != nil {
			srv.guard("RecoveryLimit", func() { r.limit.Charge(int(float64(beyond) / unit)) })
		}
	})
}

// left returns how many bytes the session may still read within its own pace.
func (r *recovery) left() int {
	return int(float64(r.socket.ns.srv.recoveries.left(r.pid, time.Now(), r.back)) / r.unit())
}

// unit is the time that one byte counts as.
func (r *recovery) unit() float64 {
	return float64(r.socket.ns.srv.recoveries.pace.interval) / recoveryRead
}

// wait waits until more may be read: within the session's own pace, or within the limit that its
// client shares with others, or because it has waited for readPatience. So large replays are
// spread, and none is refused.
func (r *recovery) wait() error {
	srv, conn := r.socket.ns.srv, r.socket.client.conn.Context()
	for r.limit != nil && r.maxWait > 0 && !r.socket.hasEnded() {
		wait := min(srv.recoveries.wait(r.pid, time.Now()), r.maxWait, readsAgain)
		if wait > 0 {
			srv.guard("RecoveryLimit", func() { wait = min(wait, r.limit.Wait()) })
		}
		if wait <= 0 {
			break
		}
		r.maxWait -= wait
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-conn.Done():
			timer.Stop()
			return context.Cause(conn)
		}
	}
	return nil
}

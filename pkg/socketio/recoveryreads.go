package socketio

import (
	"context"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A RecoveryLimit bounds what the recoveries of several clients read together, beyond what
// each of their sessions may. Its methods are called concurrently and must not block.
type RecoveryLimit interface {
	// Charge says that so many bytes have been read, whether the limit allows them or not.
	Charge(bytes int)
	// Wait returns how long to wait until more may be read, 0 for not at all.
	Wait() time.Duration
}

// recoveryRead is how many bytes of missed events count as one recovery more.
const recoveryRead = 12 << 10

// countReads returns a context whose reads of missed events the session pays for, and what
// is beyond its pace those with whom its client shares a limit. Of what the session owes some
// will be given back.
func (s *Socket) countReads(ctx context.Context, back time.Duration) context.Context {
	srv := s.ns.srv
	s.mu.Lock()
	pid := s.pid
	s.mu.Unlock()
	unit := srv.recoveries.pace.interval.Seconds() / recoveryRead // of a byte
	return adapter.OnRead(ctx, func(bytes int) {
		more := time.Duration(float64(bytes) * unit * float64(time.Second))
		if beyond := srv.recoveries.add(pid, time.Now(), more, back); beyond > 0 {
			s.shared(func(l RecoveryLimit) { l.Charge(int(beyond.Seconds() / unit)) })
		}
	})
}

// shared calls a function with the limit that the socket shares with others, if there is one.
func (s *Socket) shared(f func(RecoveryLimit)) {
	srv := s.ns.srv
	if srv.opts.RecoveryLimit == nil {
		return
	}
	srv.guard("RecoveryLimit", func() {
		if l := srv.opts.RecoveryLimit(s); l != nil {
			f(l)
		}
	})
}

// awaitReads waits until more missed events may be read again: by the session's own pace, or
// by the limit that its client shares with others. Recoveries are delayed by it, not refused.
func (s *Socket) awaitReads() error {
	srv, conn := s.ns.srv, s.client.conn.Context()
	s.mu.Lock()
	pid := s.pid
	s.mu.Unlock()
	for {
		own, wait := srv.recoveries.wait(pid, time.Now()), time.Duration(0)
		if own > 0 {
			s.shared(func(l RecoveryLimit) { wait = min(own, l.Wait()) })
		}
		if wait <= 0 {
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-conn.Done():
			timer.Stop()
			return context.Cause(conn)
		}
	}
}

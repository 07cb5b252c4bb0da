package socketio

import (
	"context"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// lostPause is the time from a loss of messages to the search for the lost ones.
const lostPause = 100 * time.Millisecond

// runRefresh extends the expiry of the sessions of the connected sockets, periodically and as soon
// as evictions may have been lost.
func (s *Server) runRefresh(ctx context.Context) {
	lost := make(chan struct{}, 1)
	if a, ok := s.adapter.(adapter.LossReporter); ok {
		a.OnMessagesLost(func() {
			select {
			case lost <- struct{}{}:
			default: // it is known
			}
		})
	}
	tick := time.NewTicker(RefreshPeriod(s.opts.RecoveryWindow))
	defer tick.Stop()
	var again <-chan time.Time // after a failure, which may hide a lost eviction
	for {
		repeated := false
		select {
		case <-ctx.Done():
			return
		case <-again:
			repeated = true
		case <-lost:
			select { // more may follow
			case <-time.After(lostPause):
			case <-ctx.Done():
				return
			}
		case <-tick.C:
		}
		again = nil
		if err := s.refresh(); err != nil {
			again = time.After(giveUpPeriod)
			if !repeated { // a store may be away for long
				s.log.Warn("sessions not refreshed", zap.Error(err))
			}
		}
	}
}

// refresh extends the expiry of the sessions of the sockets whose clients answer. It cuts those
// whose session no longer exists, and evicts those that moved. An error means that the store has not
// answered for all of them.
func (s *Server) refresh() error {
	alive := s.opts.Engine.PingInterval + s.opts.Engine.PingTimeout/2
	refs, served := s.owned.alive(time.Now().Add(-alive))
	ctx, cancel := s.store()
	defer cancel()
	gone, err := s.sessions.Refresh(ctx, refs, s.opts.sessionLife())
	for _, ref := range gone { // also those that were found before an error
		if sock := s.owned.holder(ref); sock != nil {
			sock.background(sock.save, nil) // the write detects its new state
		}
	}
	if err == nil {
		s.renew(served)
	}
	return err
}

// holder returns the socket that serves a session under a fence, or nil.
func (o *ownership) holder(ref session.Ref) *Socket {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s := o.served[ref.PID]; s != nil && s.fence == ref.Fence {
		return s
	}
	return nil
}

// alive returns the sessions of the sockets whose clients have answered since a time, and all sockets.
func (o *ownership) alive(since time.Time) (refs []session.Ref, served []*Socket) {
	o.mu.Lock()
	defer o.mu.Unlock()
	refs, served = make([]session.Ref, 0, len(o.served)), slices.Collect(maps.Values(o.served))
	for pid, s := range o.served {
		if !s.client.conn.Alive().Before(since) {
			refs = append(refs, session.Ref{PID: pid, Fence: s.fence})
		}
	}
	return refs, served
}

package socketio

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// An eviction tells a session's former owner that the session was claimed.
type eviction struct {
	session.Ref
	Abandoned bool // the claim failed, and the client is not connected
}

const (
	// evictionPeriod is the interval between two attempts to send evictions to a node.
	evictionPeriod = 250 * time.Millisecond
	// maxEvictions bounds the evictions that wait for one node. Its fences tell it of others.
	maxEvictions = 10_000
)

// evictions holds the evictions that could not be sent, by node. While some wait for a node, later
// ones wait behind them, because after a crash thousands of clients come from the same node.
type evictions struct {
	mu      sync.Mutex
	waiting map[string][]eviction
}

// queue adds an eviction to those that wait for a node, and reports whether there are any.
func (w *evictions) queue(owner string, e eviction) (waits bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all, waits := w.waiting[owner]
	if waits && len(all) < maxEvictions {
		w.waiting[owner] = append(all, e)
	}
	return waits
}

// begin makes an eviction wait for a node, and reports whether it is the first one.
func (w *evictions) begin(owner string, e eviction) (first bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting == nil {
		w.waiting = make(map[string][]eviction)
	}
	all, waits := w.waiting[owner]
	if len(all) < maxEvictions {
		w.waiting[owner] = append(all, e)
	}
	return !waits
}

// next returns the first eviction that waits for a node, and forgets the node if there is
// none.
func (w *evictions) next(owner string) (e eviction, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if all := w.waiting[owner]; len(all) > 0 {
		return all[0], true
	}
	delete(w.waiting, owner)
	return e, false
}

// sent removes the first eviction that waits for a node.
func (w *evictions) sent(owner string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting[owner] = w.waiting[owner][1:]
}

// giveUp removes all that wait for a node, and returns their number.
func (w *evictions) giveUp(owner string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.waiting[owner])
	delete(w.waiting, owner)
	return n
}

// tellEviction notifies a session's former owner, a node, that the session has been claimed. If the
// message cannot be sent, it is sent later, as long as the node is in the cluster. If it is lost, the
// fence tells the node at its next write or refresh.
func (s *Server) tellEviction(owner string, e eviction) {
	switch owner {
	case "":
		return
	case string(s.adapter.Node()):
		s.evict(e)
		return
	}
	if s.evictions.queue(owner, e) {
		return
	}
	if err := s.sendEviction(owner, e); err == nil {
		return
	}
	if s.evictions.begin(owner, e) {
		s.spawn(func() { s.sendEvictions(owner) })
	}
}

func (s *Server) sendEviction(owner string, e eviction) error {
	ctx, cancel := s.store()
	defer cancel()
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return s.adapter.Send(ctx, adapter.NodeID(owner), adapter.Message{Kind: messageEvict, Data: data})
}

// sendEvictions sends the evictions that wait for a node, until none is left, the node is no longer in
// the cluster, or it will have refreshed its sessions.
func (s *Server) sendEvictions(owner string) {
	tick := time.NewTicker(evictionPeriod)
	defer tick.Stop()
	for end := time.Now().Add(RefreshPeriod(s.opts.RecoveryWindow)); ; {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			s.evictions.giveUp(owner)
			return
		}
		var err error
		for err == nil && s.ctx.Err() == nil {
			e, waits := s.evictions.next(owner)
			if !waits {
				return
			}
			if err = s.sendEviction(owner, e); err == nil {
				s.evictions.sent(owner)
			}
		}
		if time.Now().After(end) || !s.isMember(owner) {
			n := s.evictions.giveUp(owner)
			s.log.Debug("former session owner not notified", zap.String("node", owner), zap.Int("sessions", n), zap.Error(err))
			return
		}
	}
}

// isMember reports whether a node is in the cluster, as far as is known.
func (s *Server) isMember(id string) bool {
	ctx, cancel := context.WithTimeout(s.ctx, storeTimeout)
	defer cancel()
	members, err := s.adapter.Nodes(ctx)
	return err != nil || slices.ContainsFunc(members, func(m adapter.Member) bool { return string(m.ID) == id })
}

func (s *Server) takeEvict(m adapter.Message) {
	var e eviction
	if json.Unmarshal(m.Data, &e) == nil {
		s.evict(e)
	}
}

func (s *Server) evict(e eviction) {
	s.owned.overtaken(e.Ref)
	if e.Abandoned {
		s.owned.abandoned(e.Ref)
	}
}

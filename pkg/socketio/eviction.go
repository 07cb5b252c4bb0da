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

// An eviction notifies a session's former owner that the session was claimed.
type eviction struct {
	session.Ref
	Abandoned bool // the claim failed, and the client is not connected
}

const (
	// evictionPeriod is the interval between two attempts to send evictions to a node.
	evictionPeriod = 250 * time.Millisecond
	// maxEvictions bounds the pending evictions of one node. It detects others by their fences.
	maxEvictions = 10_000
)

// evictions holds the evictions that could not be sent, by node. While some wait for a node, later
// ones wait behind them, because after a crash thousands of clients come from the same node.
type evictions struct {
	mu      sync.Mutex
	waiting map[string][]eviction
}

// add makes an eviction wait for a node, only behind others if none has failed, and reports whether
// others wait.
func (w *evictions) add(owner string, e eviction, failed bool) (others bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all, others := w.waiting[owner]
	if (others || failed) && len(all) < maxEvictions {
		put(&w.waiting, owner, append(all, e))
	}
	return others
}

// next returns the first eviction that waits for a node, after removing the one before if that has been
// sent. Without one, nothing waits any more.
func (w *evictions) next(owner string, sent bool) (e eviction, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.waiting[owner]
	if sent {
		all = all[1:]
	}
	if len(all) == 0 {
		delete(w.waiting, owner)
		return e, false
	}
	w.waiting[owner] = all
	return all[0], true
}

// giveUp removes all that wait for a node, and returns their number.
func (w *evictions) giveUp(owner string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.waiting[owner])
	delete(w.waiting, owner)
	return n
}

// notifyEviction notifies a session's former owner, a node, that the session has been claimed. If the
// message cannot be sent, it is sent later, as long as the node is in the cluster. If it is lost, the
// node detects it by the fence at its next write or refresh.
func (s *Server) notifyEviction(owner string, e eviction) {
	switch owner {
	case "":
		return
	case string(s.adapter.Node()):
		s.evict(e)
		return
	}
	if s.evictions.add(owner, e, false) || s.sendEviction(owner, e) == nil {
		return
	}
	if !s.evictions.add(owner, e, true) {
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
		for sent := false; err == nil && s.ctx.Err() == nil; sent = true {
			e, waits := s.evictions.next(owner, sent)
			if !waits {
				return
			}
			err = s.sendEviction(owner, e)
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

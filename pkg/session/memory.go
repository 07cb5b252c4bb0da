package session

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// A Memory is a [Store] in one process. It has no goroutines and needs no Close: each new session
// checks a few others for expiry, so that the store never holds more than about twice the live
// sessions.
type Memory struct {
	mu    sync.Mutex
	byPID map[string]*entry
	all   []*entry // the same ones, in no order
	hand  int      // moves around all, looking for expired ones
}

type entry struct {
	session *Session // the store's own copy: replaced, never changed
	expires time.Time
	index   int // in Memory.all
}

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{byPID: make(map[string]*entry)} }

// Create implements [Store].
func (m *Memory) Create(ctx context.Context, s Session, ttl time.Duration) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	s = s.clone()
	s.Fence = 1
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.sweep(now)
	if m.find(s.PID, now) != nil {
		return ErrExists
	}
	e := &entry{session: &s, expires: now.Add(ttl), index: len(m.all)}
	m.byPID[s.PID] = e
	m.all = append(m.all, e)
	return nil
}

// Save implements [Store].
func (m *Memory) Save(ctx context.Context, s Session, ttl time.Duration) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	s = s.clone()
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	e, err := m.fenced(Ref{PID: s.PID, Fence: s.Fence}, now)
	if err != nil {
		return err
	}
	e.session, e.expires = &s, now.Add(ttl)
	return nil
}

// Claim implements [Store]. It calls check without a lock, and again if the session has
// changed meanwhile.
func (m *Memory) Claim(ctx context.Context, pid, by string, ttl time.Duration, check func(Session) error) (Session, string, error) {
	for {
		if err := context.Cause(ctx); err != nil {
			return Session{}, "", err
		}
		seen := m.peek(pid)
		if seen == nil {
			return Session{}, "", ErrNotFound
		}
		if check != nil {
			if err := check(seen.clone()); err != nil {
				return Session{}, "", err
			}
		}
		if claimed := m.claim(seen, by, ttl); claimed != nil {
			return claimed.clone(), seen.Owner, nil
		}
	}
}

// Peek implements [Peeker].
func (m *Memory) Peek(ctx context.Context, pid string) (Session, time.Duration, error) {
	if err := context.Cause(ctx); err != nil {
		return Session{}, 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	e := m.find(pid, now)
	if e == nil {
		return Session{}, 0, ErrNotFound
	}
	return e.session.clone(), e.expires.Sub(now), nil
}

func (m *Memory) peek(pid string) *Session {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.find(pid, time.Now()); e != nil {
		return e.session
	}
	return nil
}

// claim returns nil if the session is no longer the one that was seen.
func (m *Memory) claim(seen *Session, by string, ttl time.Duration) *Session {
	claimed := *seen
	claimed.Owner = by
	claimed.Fence++
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	e := m.find(seen.PID, now)
	if e == nil || e.session != seen {
		return nil
	}
	e.session, e.expires = &claimed, now.Add(ttl)
	return &claimed
}

// Refresh implements [Store].
func (m *Memory) Refresh(ctx context.Context, live []Ref, ttl time.Duration) (gone []Ref, err error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	// In chunks, so that no connecting client waits for all of them.
	for piece := range slices.Chunk(live, 1024) {
		gone = m.refresh(piece, ttl, gone)
	}
	return gone, nil
}

func (m *Memory) refresh(live []Ref, ttl time.Duration, gone []Ref) []Ref {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for _, ref := range live {
		if e, err := m.fenced(ref, now); err != nil {
			gone = append(gone, ref)
		} else {
			e.expires = now.Add(ttl)
		}
	}
	return gone
}

// Drop implements [Store].
func (m *Memory) Drop(ctx context.Context, ref Ref) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e, err := m.fenced(ref, time.Now())
	if err == nil {
		m.remove(e)
	}
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// m.mu is held in all of the following.

// find returns the live session with a private id, or nil.
func (m *Memory) find(pid string, now time.Time) *entry {
	e := m.byPID[pid]
	if e != nil && e.expired(now) {
		m.remove(e)
		return nil
	}
	return e
}

// fenced returns the live session that ref names.
func (m *Memory) fenced(ref Ref, now time.Time) (*entry, error) {
	e := m.find(ref.PID, now)
	switch {
	case e == nil:
		return nil, ErrNotFound
	case e.session.Fence != ref.Fence:
		return nil, ErrFenced
	}
	return e, nil
}

// sweep moves the hand past two sessions and removes those that have expired. It checks two for
// each one that is created, so that the hand gains on a growing store.
func (m *Memory) sweep(now time.Time) {
	for range min(2, len(m.all)) {
		m.hand++
		if m.hand >= len(m.all) {
			m.hand = 0
		}
		if e := m.all[m.hand]; e.expired(now) {
			m.remove(e)
			m.hand-- // another has taken its place
		}
	}
}

func (m *Memory) remove(e *entry) {
	delete(m.byPID, e.session.PID)
	last := m.all[len(m.all)-1]
	m.all[e.index], last.index = last, e.index
	m.all[len(m.all)-1] = nil
	m.all = m.all[:len(m.all)-1]
}

func (e *entry) expired(now time.Time) bool { return !now.Before(e.expires) }

// clone returns a copy that shares nothing with s that can be changed.
func (s Session) clone() Session {
	s.Data = slices.Clone(s.Data)
	s.Rooms = slices.Clone(s.Rooms)
	return s
}

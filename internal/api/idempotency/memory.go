package idempotency

import (
	"cmp"
	"container/list"
	"context"
	"sync"
	"time"
)

// MemoryOptions configure a [Memory]. Zero fields mean the defaults.
type MemoryOptions struct {
	Lifetime time.Duration // [Lifetime]
	MaxBytes int           // total size; 64 MiB
}

// A Memory is the [Store] of a single node.
type Memory struct {
	o MemoryOptions

	mu    sync.Mutex
	keys  map[string]*list.Element // of order
	order *list.List               // entries by age, oldest first
	bytes int
}

type entry struct {
	claim    Claim
	at       time.Time
	response *Response
}

// overhead is the approximate memory of an entry in addition to its strings.
const overhead = 256

func (e *entry) size() int {
	n := overhead + len(e.claim.Key) + len(e.claim.Call)
	if e.response != nil {
		n += len(e.response.Body)
	}
	return n
}

// NewMemory returns an empty store.
func NewMemory(o MemoryOptions) *Memory {
	o.Lifetime = cmp.Or(o.Lifetime, Lifetime)
	o.MaxBytes = cmp.Or(o.MaxBytes, 64<<20)
	return &Memory{o: o, keys: make(map[string]*list.Element), order: list.New()}
}

// Claim implements [Store].
func (m *Memory) Claim(ctx context.Context, c Claim) (*Record, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.expire(now)
	if e := m.entry(c.Key); e != nil && e.claim == c {
		return nil, nil
	} else if e != nil {
		return &Record{e.claim.Call, now.Sub(e.at), e.response}, nil
	}
	e := &entry{claim: c, at: now}
	if m.bytes+e.size() > m.o.MaxBytes {
		return nil, ErrFull
	}
	m.keys[c.Key] = m.order.PushBack(e)
	m.bytes += e.size()
	return nil, nil
}

// Finish implements [Store].
func (m *Memory) Finish(ctx context.Context, c Claim, r Response) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire(time.Now())
	e := m.entry(c.Key)
	if e == nil || e.claim != c {
		return ErrLost
	}
	m.bytes -= e.size()
	e.response = &r
	m.bytes += e.size()
	return nil
}

// Free implements [Store].
func (m *Memory) Free(ctx context.Context, c Claim) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.entry(c.Key); e != nil && e.claim == c {
		m.forget(e)
	}
	return nil
}

// entry returns the entry of a key, or nil. m.mu is held.
func (m *Memory) entry(key string) *entry {
	if at := m.keys[key]; at != nil {
		return at.Value.(*entry)
	}
	return nil
}

// expire removes expired entries. m.mu is held.
func (m *Memory) expire(now time.Time) {
	for at := m.order.Front(); at != nil; at = m.order.Front() {
		e := at.Value.(*entry)
		if now.Sub(e.at) < m.o.Lifetime {
			break
		}
		m.forget(e)
	}
}

func (m *Memory) forget(e *entry) {
	m.order.Remove(m.keys[e.claim.Key])
	delete(m.keys, e.claim.Key)
	m.bytes -= e.size()
}

var _ Store = (*Memory)(nil)

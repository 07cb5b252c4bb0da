package socketio

import (
	"context"
	"sync"
)

// A task is something that a mailbox runs: a received event, or a step in its
// socket's life.
type task interface{ do() }

type step func()

func (f step) do() { f() }

// A mailbox runs tasks one after another, on a goroutine that exists only while
// there are some. It is made paused: what is put in before start waits for it.
type mailbox struct {
	mu      sync.Mutex
	tasks   []task
	bytes   int           // of events
	started bool          // tasks may run
	running bool          // a goroutine runs them
	closed  bool          // no event gets in any more
	space   chan struct{} // closed when there is room again; nil if nobody waits
}

// put adds a step, which is not refused.
func (m *mailbox) put(spawn func(func()), f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.add(spawn, step(f))
}

// putLast adds a step behind all events that are in the mailbox. Later ones are
// dropped.
func (m *mailbox) putLast(spawn func(func()), f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.add(spawn, step(f))
}

// putEvent adds the handling of a received event. While the mailbox is paused it
// refuses more bytes than it may hold; afterwards it waits until it holds fewer, at
// most until the context ends.
func (m *mailbox) putEvent(ctx context.Context, spawn func(func()), maxBytes int, e *Event) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.started {
		if len(m.tasks) >= pendingEvents || m.bytes+e.size > maxBytes {
			return errTooEarly
		}
	}
	for m.started && (len(m.tasks) >= mailboxEvents || m.bytes >= maxBytes) {
		if m.space == nil {
			m.space = make(chan struct{})
		}
		space := m.space
		m.mu.Unlock()
		select {
		case <-space:
		case <-ctx.Done():
		}
		m.mu.Lock()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if !m.closed {
		m.bytes += e.size
		m.add(spawn, e)
	}
	return nil
}

// start lets tasks run, first before all others.
func (m *mailbox) start(spawn func(func()), first func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.started = true
	m.tasks = append([]task{step(first)}, m.tasks...)
	m.wake(spawn)
}

func (m *mailbox) add(spawn func(func()), t task) {
	m.tasks = append(m.tasks, t)
	m.wake(spawn)
}

func (m *mailbox) wake(spawn func(func())) {
	if m.started && !m.running {
		m.running = true
		spawn(m.run)
	}
}

// run runs tasks until there are none.
func (m *mailbox) run() {
	for {
		m.mu.Lock()
		if len(m.tasks) == 0 {
			m.tasks, m.running = nil, false
			m.mu.Unlock()
			return
		}
		next := m.tasks[0]
		m.tasks[0] = nil
		m.tasks = m.tasks[1:]
		if e, ok := next.(*Event); ok {
			m.bytes -= e.size
		}
		if m.space != nil && len(m.tasks) < mailboxEvents/2 {
			close(m.space)
			m.space = nil
		}
		m.mu.Unlock()
		next.do()
	}
}

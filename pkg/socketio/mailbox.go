package socketio

import (
	"math"
	"slices"
	"sync"
)

// A task is run by a mailbox: a received event, or a step in its socket's lifecycle.
type task interface{ do() }

type step func()

func (f step) do() { f() }

// A mailLimit bounds the events in a mailbox. At the limit its connection is no longer
// read.
type mailLimit struct{ events, bytes int }

func (l mailLimit) double() mailLimit { return mailLimit{2 * l.events, 2 * l.bytes} }

// Names of the limits, in logs and metrics.
const (
	limitEvents = "events"
	limitBytes  = "bytes"
	limitBudget = "budget" // of all sockets
	limitPause  = "pause"
)

// A mailbox runs tasks one after another, on a goroutine that exists only while there are tasks. It
// is created paused: tasks added before start wait for it.
type mailbox struct {
	mu      sync.Mutex
	tasks   []task
	events  int       // of tasks
	bytes   int       // memory that the events take
	counted int32     // of them counted in the receive budget, in steps of receivedStep
	open    bool      // CONNECT is being answered, so any number of events may come
	started bool      // tasks may run
	running bool      // a goroutine runs them
	closed  bool      // no further event is accepted
	full    *fullMail // nil unless a reader waits for space
}

// A fullMail is a mailbox in which an event had no space.
type fullMail struct {
	limit string        // the one that was reached
	space chan struct{} // closed when a retry may succeed
	below mailLimit     // the mailbox's size at which it is closed
	taken bool          // an event has been taken out since
}

// put adds a step, which is never refused.
func (m *mailbox) put(on *tasks, f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.add(on, step(f))
}

// putLast adds a step after all events in the mailbox. Later events are dropped, including one that
// waits for space.
func (m *mailbox) putLast(on *tasks, f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.add(on, step(f))
	m.wakeReader()
}

// close makes the mailbox drop further events, so that it keeps a prefix of a client's events.
func (m *mailbox) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
}

// drop is close, and also drops the waiting events.
func (m *mailbox) drop(c *client) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.tasks = slices.DeleteFunc(m.tasks, func(t task) bool { _, event := t.(*Event); return event })
	m.events, m.bytes = 0, 0
	m.count(c)
	m.wakeReader()
}

// count updates the memory of the events in the budget of all sockets. m.mu is held.
func (m *mailbox) count(c *client) {
	if steps := int32(m.bytes / receivedStep); steps != m.counted {
		c.srv.received.keeps(c, int(steps-m.counted)*receivedStep)
		m.counted = steps
	}
}

// expect is called before CONNECT is answered. The client may send all buffered events as
// soon as it has the answer, before start is called.
func (m *mailbox) expect() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open = true
}

// putEvent adds the handling of a received event. Before CONNECT is answered it refuses more than
// may wait for that. Afterwards, if the limit is reached, it does not add the event and returns a
// fullMail to wait for. If overHalf, because the events of all sockets fill half of the budget,
// the limit is smallReceived bytes: the socket's own handlers make space.
func (m *mailbox) putEvent(on *tasks, limit mailLimit, overHalf bool, e *Event) (*fullMail, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	cost := e.cost()
	switch {
	case m.closed:
		return nil, nil
	case !m.open && m.events > 0 && (m.events >= pendingEvents || m.bytes+cost > limit.bytes):
		return nil, errTooEarly
	case m.open && m.events >= limit.events:
		return m.awaitSpace(limitEvents, limit), nil
	case m.open && m.bytes >= limit.bytes:
		return m.awaitSpace(limitBytes, limit), nil
	case m.open && overHalf && m.bytes >= smallReceived:
		return m.awaitSpace(limitBudget, mailLimit{limit.events, 2 * smallReceived}), nil
	}
	m.full = nil // the reader does not wait any more
	m.events++
	m.bytes += cost
	m.count(e.socket.client)
	m.add(on, e)
	return nil, nil
}

// awaitSpace returns a fullMail that is signalled when half of the limit is free. m.mu is held.
func (m *mailbox) awaitSpace(name string, limit mailLimit) *fullMail {
	if m.full == nil {
		m.full = &fullMail{limit: name, space: make(chan struct{}), below: mailLimit{limit.events / 2, limit.bytes / 2}}
	}
	return m.full
}

// retryEarly makes a reader that waits for space retry as soon as one more event has been taken out.
// That need not bring the mailbox below its limit: an awaited ack may have let it grow, or a large
// event. retryEarly reports whether an event has been taken out already since there was no space.
func (m *mailbox) retryEarly() (taken bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full == nil {
		return false
	}
	m.full.below = mailLimit{m.events - 1, math.MaxInt}
	return m.full.taken
}

// retry makes a reader that waits for space retry.
func (m *mailbox) retry() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wakeReader()
}

// prolong makes a reader that waits for space wait anew, as after an event.
func (m *mailbox) prolong() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full != nil {
		m.full.taken = true
		m.wakeReader()
	}
}

// wakeReader is retry with m.mu held.
func (m *mailbox) wakeReader() {
	if m.full != nil {
		close(m.full.space)
		m.full = nil
	}
}

// wakeIfSpace wakes a reader if there is space for it. m.mu is held.
func (m *mailbox) wakeIfSpace() {
	if m.full != nil && m.events <= m.full.below.events && m.bytes <= m.full.below.bytes {
		m.wakeReader()
	}
}

// start starts the tasks, with first before all others unless it is nil.
func (m *mailbox) start(on *tasks, first func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.started = true
	if first != nil {
		m.tasks = append([]task{step(first)}, m.tasks...)
	}
	if len(m.tasks) > 0 {
		m.wake(on)
	}
}

func (m *mailbox) add(on *tasks, t task) {
	m.tasks = append(m.tasks, t)
	m.wake(on)
}

func (m *mailbox) wake(on *tasks) {
	if m.started && !m.running {
		m.running = true
		on.start(func() { m.run(on) })
	}
}

// run runs tasks until there are none. If one of them ends the goroutine, another one continues.
func (m *mailbox) run(on *tasks) {
	ended := false
	defer func() {
		if !ended {
			on.start(func() { m.run(on) })
		}
	}()
	for {
		m.mu.Lock()
		if len(m.tasks) == 0 {
			m.tasks, m.running = nil, false
			m.mu.Unlock()
			ended = true
			return
		}
		next := m.tasks[0]
		m.tasks[0] = nil
		m.tasks = m.tasks[1:]
		if e, ok := next.(*Event); ok {
			m.events--
			m.bytes -= e.cost()
			m.count(e.socket.client)
			if m.full != nil {
				m.full.taken = true
			}
		}
		m.wakeIfSpace()
		m.mu.Unlock()
		next.do()
	}
}

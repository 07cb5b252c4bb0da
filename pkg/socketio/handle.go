package socketio

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/packet"
)

// receive puts an event into the mailbox of its socket. The connection's reader calls it. An error
// means that the client violated the protocol.
func (s *Socket) receive(p *packet.Packet) error {
	srv := s.client.srv
	e := &Event{Name: p.Event, Args: Args{p.Args, p.Attachments}, socket: s, ackID: p.ID, at: time.Now()}
	srv.stats.eventsIn.Add(1)
	e.size = len(p.Data) + totalSize(p.Attachments)
	full, err := s.mail.putEvent(&srv.tasks, srv.opts.mailLimit(), srv.received.overHalf(srv.opts.ReceiveBudget), e)
	if full != nil {
		return s.park(e, full)
	}
	srv.relieve()
	return err
}

// handle runs the functions that are registered for an event.
func (s *Socket) handle(e *Event) {
	s.mu.Lock()
	onAny, onEvent := s.onAny, s.onEvent
	s.mu.Unlock()
	run := func(hs []Handler) bool {
		for _, h := range hs {
			if err := h(s.ctx, e); err != nil {
				ended := s.ctx.Err() != nil || s.client.conn.Context().Err() != nil
				if ended && (errors.Is(err, context.Canceled) || errors.Is(err, ErrDisconnected)) {
					return false // it stopped because the socket has ended, as intended
				}
				s.fail(fmt.Errorf("event %.100q: %w", e.Name, err))
				return false
			}
		}
		return true
	}
	shared := s.ns.rulesNow()
	ok := s.protect("OnAny", func() {
		run(onAny)
		for i := range shared { // of which the stack has no copies
			run(shared[i].onAny)
		}
	})
	if !ok || !s.protect("Socket.Use", func() { ok = run(onEvent) }) || !ok {
		return
	}
	s.mu.Lock()
	once, own := s.once[e.Name], s.handlers[e.Name] // by the name that the middlewares have set
	delete(s.once, e.Name)
	s.mu.Unlock()
	s.protect("On", func() {
		run(once)
		run(own)
		for i := range shared {
			run(shared[i].handlers[e.Name])
		}
	})
}

// fail reports an error to the error handlers, or to the log.
func (s *Socket) fail(err error) {
	if !s.reportError(err) {
		s.client.srv.log.Warn("socket error", zap.String("namespace", s.nsName), zap.String("socket", s.ID()), zap.Error(err))
	}
}

// reportError calls the error handlers, and reports whether there are any.
func (s *Socket) reportError(err error) bool {
	s.mu.Lock()
	onError := s.onError
	s.mu.Unlock()
	for _, f := range onError {
		s.client.srv.guard("OnError", func() { f(err) })
	}
	return len(onError) > 0
}

// sendAck answers an event of the client, as soon as it has taken most of the answers before.
func (s *Socket) sendAck(id string, data []byte, attachments [][]byte) error {
	ps := enginePackets(&packet.Packet{
		Type: packet.Ack, Namespace: s.nsName, ID: id, Data: data, Attachments: attachments,
	}, false)
	switch {
	case s.holdAck(ps):
		s.client.awaitAnswered(s.ctx) // so that no more acks are held than the client takes
		return nil
	case s.client.answer(ps), s.awaitAnswer(ps):
		return nil
	}
	return ErrDisconnected
}

// awaitAnswered waits while answers fill half of the send queue.
func (c *client) awaitAnswered(ctx context.Context) {
	half := c.srv.opts.Engine.SendQueueBytes / 2
	if c.conn.Held() <= half {
		return
	}
	_ = c.whileTaking(ctx, func(ctx context.Context) error { return c.conn.WaitAnswered(ctx, half) })
}

// answer queues an answer if no other one waits and there is space for it.
func (c *client) answer(ps []*engineio.Packet) bool {
	turn := c.turn(ps)
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
		return c.conn.TrySendPaced(c.srv.aheadAnswers(), ps...)
	default:
		return false
	}
}

func (c *client) turn(ps []*engineio.Packet) chan struct{} {
	if engineio.IsSmallPaced(ps...) {
		return c.answering.small
	}
	return c.answering.large
}

// waiterBytes is the approximate memory of a goroutine that waits with an answer.
const waiterBytes = 4 << 10

// awaitAnswer queues an answer after those that wait, as soon as there is space: a client that requests
// more than its line carries must not be cut for that. It fails if the socket ends first.
func (s *Socket) awaitAnswer(ps []*engineio.Packet) bool {
	c := s.client
	turn := c.turn(ps)
	release := sync.OnceFunc(c.conn.HoldPaced(waiterBytes, ps...))
	defer release()
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-s.ctx.Done(): // while the answers of another namespace wait
		return false
	}
	if c.awaitSpace(s.ctx, ps) != nil {
		return false
	}
	release()
	return c.conn.SendPaced(ps...) == nil
}

// awaitSpace waits until there is space for an answer. The caller has its turn.
func (c *client) awaitSpace(ctx context.Context, ps []*engineio.Packet) error {
	ahead := c.srv.aheadAnswers()
	space := func(ctx context.Context) error { return c.conn.WaitPaced(ctx, ahead, ps...) }
	if err := c.whileTaking(ctx, space); err != nil {
		return err
	}
	if n := length(ps); n > ahead {
		c.awaitCalm(ctx, max(4*ahead, c.srv.opts.Engine.SendQueueBytes/4*3-n))
	}
	return nil
}

// length returns the size of the frames of packets.
func length(ps []*engineio.Packet) (bytes int) {
	for _, p := range ps {
		bytes += p.Len()
	}
	return bytes
}

// awaitCalm waits, in front of a large answer, until not much else is queued: more will be, before the
// client has taken both. It does not wait for long, because the client's next event can be what makes
// it less: it leaves a busy room.
func (c *client) awaitCalm(ctx context.Context, maximum int) {
	ctx, cancel := context.WithTimeout(ctx, c.srv.opts.Engine.PingTimeout/2)
	defer cancel()
	_ = c.whileTaking(ctx, func(ctx context.Context) error { return c.conn.WaitQueue(ctx, maximum) })
}

// whileTaking calls wait as long as the client reads. Handlers that wait for a slow client are not
// stuck. A client that reads nothing for the ping timeout is cut, and can reconnect.
func (c *client) whileTaking(ctx context.Context, wait func(context.Context) error) error {
	timeout := c.srv.opts.Engine.PingTimeout
	for {
		during, cancel := context.WithTimeout(ctx, min(timeout, c.srv.opts.Engine.PauseTimeout/2))
		err := wait(during)
		cancel()
		switch {
		case err == nil:
		case ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
			return err
		case c.cutStalled():
			return fmt.Errorf("client has read nothing for %v", timeout)
		}
		c.prolong()
		if err == nil {
			return nil
		}
	}
}

// cutStalled cuts the client, and reports true, if it has taken nothing for the ping timeout: its
// pongs may be unread.
func (c *client) cutStalled() bool {
	timeout := c.srv.opts.Engine.PingTimeout
	if !c.conn.Stalled(timeout) {
		return false
	}
	c.limited(limitReadProgress, int(timeout/time.Second), "seconds")
	c.cut()
	return true
}

// prolong notes that the client has taken something: a full mailbox may keep it paused for longer.
func (c *client) prolong() {
	if m := c.parked.Load(); m != nil {
		m.prolong()
	}
}

const (
	// queueWait is how long an event may wait for space in the send queue.
	queueWait = time.Second
	// goneLook is the interval at which it looks whether its socket has ended.
	goneLook = 20 * time.Millisecond
)

// awaitQueueSpace waits until a client has read all but half of its send queue: a client that sends
// many events before it reads their acks must not be cut for that. The wait is short, because the
// event itself can make space, such as a slow client's leave of a busy room. A client that has read
// nothing for the ping timeout is cut.
func (s *Socket) awaitQueueSpace() {
	conn, half := s.client.conn, s.client.srv.opts.Engine.SendQueueBytes/2
	full := func() bool { return conn.Held() > half }
	if !full() {
		return
	}
	for end := time.Now().Add(queueWait); full() && time.Now().Before(end) && !s.hasEnded(); {
		ctx, cancel := context.WithTimeout(s.ctx, goneLook)
		if conn.WaitQueue(ctx, half) == nil && full() {
			<-ctx.Done() // until less waits
		}
		cancel()
		if s.client.cutStalled() {
			return
		}
	}
}

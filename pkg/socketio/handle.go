package socketio

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/packet"
)

// receive moves an event from the client's reader to the mailbox.
func (s *Socket) receive(p *packet.Packet) error {
	srv := s.client.srv
	e := &Event{Name: p.Event, Args: Args{p.Args, p.Attachments}, socket: s, ackID: p.ID}
	srv.stats.eventsIn.Add(1)
	e.size = len(p.Data)
	for _, a := range p.Attachments {
		e.size += len(a)
	}
	return s.accept(e)
}

// handle runs the functions that are registered for an event.
func (s *Socket) handle(e *Event) {
	callback, returned := "OnAny", false
	defer s.rescue(&callback, &returned)
	s.runHandlers(e, &callback)
	returned = true
}

// runHandlers is handle without protection. It sets callback to the kind of function that runs.
func (s *Socket) runHandlers(e *Event, callback *string) {
	s.mu.Lock()
	onAny, onEvent := s.onAny, s.onEvent
	s.mu.Unlock()
	run := func(hs []Handler) bool {
		for _, h := range hs {
			if err := h(s.ctx, e); err != nil {
				if s.ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, ErrDisconnected)) {
					return false // it stopped because the socket has ended, as intended
				}
				s.fail(fmt.Errorf("event %q: %w", e.Name, err))
				return false
			}
		}
		return true
	}
	shared := s.ns.rulesNow()
	run(onAny)
	for _, r := range shared {
		run(r.onAny)
	}
	*callback = "Socket.Use"
	if !run(onEvent) {
		return
	}
	*callback = "On"
	s.mu.Lock()
	once, own := s.once[e.Name], s.handlers[e.Name] // by the name that the middlewares have set
	delete(s.once, e.Name)
	s.mu.Unlock()
	run(once)
	run(own)
	for _, r := range shared {
		run(r.handlers[e.Name])
	}
}

// fail reports an error to the error handlers, or to the log.
func (s *Socket) fail(err error) {
	if !s.tellErrors(err) {
		s.client.srv.log.Warn("socket error", zap.String("namespace", s.nsName), zap.String("socket", s.ID()), zap.Error(err))
	}
}

// tellErrors calls the error handlers, and reports whether there are any.
func (s *Socket) tellErrors(err error) bool {
	s.mu.Lock()
	onError := s.onError
	s.mu.Unlock()
	for _, f := range onError {
		s.client.srv.guard("OnError", func() { f(err) })
	}
	return len(onError) > 0
}

// rescue contains a panic of one socket's handler: as in net/http it is logged and the connection
// is closed, but other sockets continue. It is deferred.
func (s *Socket) rescue(callback *string, returned *bool) {
	if p := failure(*returned, recover()); p != nil {
		s.tellErrors(s.client.srv.panicked(*callback, p))
		s.client.conn.Close(engineio.ForcedClose)
	}
}

// sendAck answers an event of the client, once it has taken most of the answers before.
func (s *Socket) sendAck(id string, data []byte, attachments [][]byte) error {
	ps := enginePackets(&packet.Packet{
		Type: packet.Ack, Namespace: s.nsName, ID: id, Data: data, Attachments: attachments,
	}, false)
	size := 0
	for _, p := range ps {
		size += p.Len()
	}
	select {
	case s.client.answering <- struct{}{}:
		defer func() { <-s.client.answering }()
	case <-s.ctx.Done(): // while the acks of another namespace wait
		return ErrDisconnected
	}
	s.client.awaitAnswers(s.ctx, size, s.ahead())
	if s.queueAck(ps) != nil {
		return ErrDisconnected
	}
	return nil
}

// awaitAnswers waits, before an ack is queued, until at most some bytes of acks are queued, or this
// one alone: a client that requests more than its connection carries must not be cut for that.
// Events do not count, because the client has not requested them, so an ack waits only for the
// queue in front of it. c.answering has a value.
func (c *client) awaitAnswers(ctx context.Context, size, most int) {
	if c.answers += size; c.answers <= most || c.answers == size {
		return
	}
	c.answers = size
	_ = c.whileTaking(ctx, c.conn.WaitSent) // if it fails the ack can't be sent either
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
		case c.conn.Stalled(timeout): // its pongs may be unread
			c.limited(limitReadProgress, int(timeout/time.Second), "seconds")
			c.cut()
			return fmt.Errorf("the client has read nothing for %v", timeout)
		}
		c.prolong()
		if err == nil {
			return nil
		}
	}
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
	if conn.Queued() <= half {
		return
	}
	for end := time.Now().Add(queueWait); time.Now().Before(end) && !s.hasGone(); {
		ctx, cancel := context.WithTimeout(s.ctx, goneLook)
		err := conn.WaitQueue(ctx, half)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			return
		}
		if timeout := s.client.srv.opts.Engine.PingTimeout; conn.Stalled(timeout) { // its pongs may be unread
			s.client.limited(limitReadProgress, int(timeout/time.Second), "seconds")
			s.client.cut()
			return
		}
	}
}

// tellOutgoing reports an event that is queued. s.mu is held.
func (s *Socket) tellOutgoing(d *delivery) {
	fs := s.outgoing.fs
	if len(fs) == 0 {
		return
	}
	s.outgoing.tell(s.client.srv, d.size(), func() {
		name, raw, err := packet.SplitEvent(d.ev.Data)
		if err != nil {
			return
		}
		for _, f := range fs {
			s.guard("OnAnyOutgoing", func() { f(name, Args{raw, d.ev.Attachments}) })
		}
	})
}

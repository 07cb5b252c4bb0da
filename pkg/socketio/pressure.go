package socketio

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// park blocks the reader until its event fits into the mailbox, while the heartbeat does not count
// the client as silent. If the server waits for an ack of the client, which follows its events, the
// reader continues up to twice the limit: a handler that waits for an ack must not wait for itself.
//
// Reading resumes when half of the limit is free. If that takes long, the reader retries after each
// event, and the pause counts from the last one, because slow handlers are not stuck: the pause
// becomes too long only if none returns.
func (s *Socket) park(e *Event, full *fullMail) error {
	c := s.client
	c.parked.Store(&s.mail) // before the check for acks: see Socket.ask
	c.conn.Pause()
	defer c.parked.Store(nil)
	defer c.conn.Resume()
	srv := c.srv
	defer srv.relieve() // once the event is in the mailbox and counts only there
	if held := e.cost() + c.conn.Unread(); held >= receivedStep {
		srv.received.holds(c, held)
		defer srv.received.holds(c, 0)
		srv.relieve()
	}
	long := time.NewTimer(c.srv.opts.Engine.PauseTimeout / 4)
	defer long.Stop()
	early := false
	for reported := false; full != nil; {
		limit := c.srv.opts.mailLimit()
		asked := c.awaitsAck()
		if asked {
			limit = limit.double()
		}
		var err error
		overHalf := !asked && srv.received.overHalf(srv.opts.ReceiveBudget)
		if full, err = s.mail.putEvent(&srv.tasks, limit, overHalf, e); full == nil {
			return err
		}
		if !asked && c.awaitsAck() {
			continue // freed since the check, when no waiting reader was registered
		}
		if !reported {
			s.reportFull(full.limit)
			reported = true
		}
		if early && s.mail.retryEarly() {
			c.conn.Pause()
		}
		select {
		case <-full.space:
			if full.taken {
				c.conn.Pause()
			}
		case <-long.C:
			early = true
		case <-c.conn.Context().Done():
			if errors.Is(context.Cause(c.conn.Context()), engineio.ErrPaused) {
				s.reportFull(limitPause)
			}
			s.mail.close()
			return nil // the reader sees the end of the connection next
		}
	}
	return nil
}

// reportFull reports that a client's events have reached a limit.
func (s *Socket) reportFull(limit string) {
	srv := s.client.srv
	srv.stats.mailboxFull.add(limit)
	limits := srv.opts.mailLimit()
	logs, message := &srv.fullLogs, "mailbox full: reading paused until handlers catch up"
	bounds := []zap.Field{zap.Int("mailbox_events", limits.events), zap.Int("mailbox_bytes", limits.bytes)}
	switch limit {
	case limitPause:
		logs = &srv.pauseLogs // others' full mailboxes must not suppress it
		message = "connection closed: no event handled while reading was paused"
	case limitBudget:
		message = "receive budget half used: reading paused until handlers catch up"
		bounds = []zap.Field{zap.Int("receive_budget", srv.opts.ReceiveBudget)}
	}
	if logs.allow(time.Now()) {
		fields := []zap.Field{zap.String("limit", limit), zap.String("namespace", s.nsName), zap.String("socket", s.ID())}
		srv.log.Warn(message, append(fields, bounds...)...)
	}
}

// awaitsAck reports whether the server waits for an ack of the client.
func (c *client) awaitsAck() bool {
	for _, s := range c.all() {
		s.mu.Lock()
		awaited := len(s.acks) > 0
		s.mu.Unlock()
		if awaited {
			return true
		}
	}
	return false
}

// A logLimit lets one line pass in each logPeriod.
type logLimit struct{ last atomic.Int64 }

const logPeriod = 10 * time.Second

func (l *logLimit) allow(now time.Time) bool {
	last := l.last.Load()
	return (last == 0 || now.UnixNano()-last >= int64(logPeriod)) && l.last.CompareAndSwap(last, now.UnixNano())
}

package engineio

import (
	"bytes"
	"context"
	"net/http"
)

// upgradePosts is the number of POSTs that are answered during an upgrade although Recv has not
// taken the earlier ones. A stock client that has the answer to its probe no longer polls, receives
// no ping, and waits for the answer to its POST. It may have begun one more POST before.
const upgradePosts = 2

// addedInPause is the number of bytes of POSTs that are answered during a pause.
const addedInPause = 8 << 10

// awaitResume waits for the end of a pause before a large body is read, which takes memory. A request of
// another node is read immediately, because that node would otherwise consider this one dead.
func (p *pollingTransport) awaitResume(ctx context.Context, r *http.Request) error {
	if r.ContentLength > int64(p.c.server.o.MaxPayload) || isForwarded(r) {
		return nil
	}
	return p.await(ctx, func() bool {
		return p.c.heart.paused.IsZero() || p.fits(int(r.ContentLength)) || p.mayExceed()
	})
}

// deliver passes a checked body to Recv. It waits until Recv has taken enough of the earlier ones to
// make space for it, but clients and proxies wait only some seconds for the answer to a POST. A body
// counts until deliver returns; a body that exceeds the space counts until Recv has taken it.
func (p *pollingTransport) deliver(ctx context.Context, body []byte, arrived *arrival) error {
	arriving := &p.c.server.arriving
	exceeds := false
	err := p.await(ctx, func() bool {
		if p.c.closed != nil || len(body) == 0 {
			return true
		}
		fits := p.fits(len(body))
		if !fits && !p.mayExceed() {
			return false
		}
		if !fits {
			p.ahead++
			if exceeds = arrived != nil; exceeds {
				p.exceeding = append(p.exceeding, arrived)
			}
		}
		if len(p.inbox) == 0 {
			p.inbox, p.whole = body, bytes.IndexByte(body, separator[0]) < 0
		} else {
			p.inbox, p.whole = append(append(p.inbox, separator...), body...), false
		}
		p.held = cap(p.inbox)
		if !p.c.heart.paused.IsZero() {
			p.added += len(body)
		}
		signal(p.arrived)
		return true
	})
	switch {
	case !exceeds:
		arriving.done(arrived)
	case arriving.handOver(arrived, inboxReceiver{p}):
		err = ErrReceiveBudget
	}
	return err
}

// An inboxReceiver is the receiver of a body that Recv has yet to take.
type inboxReceiver struct{ *pollingTransport }

func (p inboxReceiver) interrupt() {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	p.c.closeLocked(&CloseError{Reason: TransportError, Err: ErrReceiveBudget}, closeDiscard)
	p.inbox = nil
}

func (inboxReceiver) progress() {}

// drop frees the bodies that Recv has not taken, because it is no longer called.
func (p *pollingTransport) drop() {
	p.c.mu.Lock()
	p.inbox = nil
	left := p.exceeding
	p.exceeding = nil
	p.c.mu.Unlock()
	p.c.server.arriving.done(left...)
}

// fits reports whether there is space for a body of n bytes: together with those that Recv has not taken
// it may have the maximum size of one body. A paused connection accepts little, such as a close. A
// larger body waits outside the session, and only while the client keeps a TCP connection open for it.
// c.mu is held.
func (p *pollingTransport) fits(n int) bool {
	if !p.c.heart.paused.IsZero() && p.added+n > addedInPause {
		return false
	}
	return len(p.inbox) == 0 || len(p.inbox)+1+n <= p.c.server.o.MaxPayload
}

// mayExceed reports whether a body that does not fit is accepted. c.mu is held.
func (p *pollingTransport) mayExceed() bool {
	return (p.state == pollingProbed || p.state == pollingUpgraded) && p.ahead < upgradePosts
}

// await waits until a condition holds, which is called with c.mu held and depends on the bodies that Recv
// has taken. It returns nil when the connection closes, and an error when ctx ends.
func (p *pollingTransport) await(ctx context.Context, holds func() bool) error {
	for {
		p.c.mu.Lock()
		if holds() {
			p.c.mu.Unlock()
			return nil
		}
		if p.taken == nil {
			p.taken = make(chan struct{}, 1)
		}
		taken := p.taken
		p.c.mu.Unlock()
		select {
		case <-taken:
		case <-p.c.ctx.Done():
			return nil // it is no longer needed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// recv returns the next message that was posted. After an upgrade it empties the inbox, and
// continues with the new transport.
func (p *pollingTransport) recv() (Message, error) {
	c := p.c
	for {
		c.mu.Lock()
		switch {
		case len(p.inbox) > 0:
			var packet []byte
			var taken []*arrival
			p.added = 0
			if packet, p.inbox = cutPacket(p.inbox); p.inbox == nil {
				p.ahead = 0
				taken, p.exceeding = p.exceeding, nil
			}
			if p.posting {
				signal(p.taken)
			}
			whole := p.whole
			c.mu.Unlock()
			c.server.arriving.done(taken...)
			kind, data, _ := decode(packet) // it was checked when it was posted
			if kind == typeMessage || kind == typeBinary {
				if kind == typeMessage && !whole {
					data = bytes.Clone(data) // the message is kept, the rest of its body must not be
				}
				return Message{Binary: kind == typeBinary, Data: data}, nil
			}
			continue
		case c.closed != nil:
			c.mu.Unlock()
			return Message{}, c.closed
		case p.state == pollingLeaving:
			c.closeLocked(&CloseError{Reason: TransportClose, Err: errPeerClosed}, closeDiscard)
			c.mu.Unlock()
			continue
		}
		if p.posting {
			signal(p.taken) // it may wait for the end of a pause
		}
		upgraded := p.state == pollingUpgraded && !p.posting
		if upgraded {
			c.polling = nil
		}
		c.mu.Unlock()
		if upgraded {
			return c.ws.recv()
		}
		select {
		case <-p.arrived:
		case <-c.ctx.Done():
		}
	}
}

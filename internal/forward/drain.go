package forward

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// departTimeout bounds the time from the request to an owner to disconnect a client to the
	// end of its WebSocket. The owner takes at most half of it for handlers, and as much again
	// for a client that reads its queued packets slowly.
	departTimeout = 10 * time.Second
	// leastPolling is the minimum time to wait for the answers to polls.
	minPolling = 250 * time.Millisecond
	// asking bounds the concurrent requests to one owner.
	asking = 128
)

// Drain ends the WebSockets that run through this node, each at a random moment of the given time,
// and accepts no new ones. It asks their owners to disconnect the clients as a draining node does,
// so that nothing in flight is lost or duplicated. WebSockets that an owner does not end in time
// are cut. The clients reconnect elsewhere. Polls are not cut, because a cut poll ends its
// session. Drain returns when nothing is in flight, or when the WebSockets have ended and polls
// have had the given time again. When ctx ends it returns the cause of ctx.
func (f *Forwarder) Drain(ctx context.Context, over time.Duration) error {
	f.mu.Lock()
	f.draining = true
	var leaving []*passage
	for p := range f.passages { // in no order
		if p.upgrade {
			leaving = append(leaving, p)
		}
	}
	f.mu.Unlock()
	transport := newTransport(f.o.Timeout, dialTimeout)
	transport.MaxConnsPerHost = asking
	defer transport.CloseIdleConnections()
	var departures sync.WaitGroup
	defer departures.Wait()
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i, p := range leaving {
		moment := (float64(i) + rand.Float64()) / float64(len(leaving)) * float64(over)
		timer.Reset(time.Until(start.Add(time.Duration(moment))))
		select {
		case <-timer.C:
			departures.Go(func() { f.depart(ctx, transport, p) })
		case <-p.ctx.Done(): // ended without Drain
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	polls := time.NewTimer(max(over, minPolling))
	defer polls.Stop()
	departures.Wait()
	select {
	case <-f.none():
	case <-polls.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// depart ends a WebSocket: through its owner, or otherwise by cutting it.
func (f *Forwarder) depart(ctx context.Context, transport *http.Transport, p *passage) {
	defer p.cancel(errClosed)
	ctx, cancel := context.WithTimeout(ctx, departTimeout)
	defer cancel()
	if err := f.askToLeave(ctx, transport, p); err != nil {
		f.log.Warn("session owner did not close the connection; WebSocket cut", zap.String("owner", p.owner), zap.Error(err))
		return
	}
	select {
	case <-p.ctx.Done(): // the owner's close was forwarded
	case <-ctx.Done():
	}
}

// askToLeave requests the owner of a WebSocket's session to disconnect its client.
func (f *Forwarder) askToLeave(ctx context.Context, transport *http.Transport, p *passage) error {
	addr, err := f.locate(ctx, p.owner, "")
	if err != nil {
		return err
	}
	to := url.URL{Scheme: "http", Host: addr, Path: LeavePath, RawQuery: url.Values{"sid": {p.sid}}.Encode()}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), nil)
	if err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	f.sign(r, p.owner, "")
	res, err := transport.RoundTrip(r)
	if err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	return errors.Join(answered(res, p.owner), res.Body.Close())
}

// Leaving serves, at [LeavePath], the requests of other nodes that drain. It calls closeSession with an
// engine session's id, and answers when that returns: by then the session's connection must be
// closed, if there was one. Unsigned requests are refused as in Handler.
func (f *Forwarder) Leaving(closeSession func(ctx context.Context, sid string)) http.Handler {
	return f.verified(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), departTimeout)
		defer cancel()
		closeSession(ctx, sessionID(r))
		w.WriteHeader(http.StatusNoContent)
	})
}

// none returns a channel that is closed when nothing is in flight.
func (f *Forwarder) none() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.empty == nil {
		f.empty = make(chan struct{})
	}
	empty := f.empty
	if len(f.passages) == 0 {
		close(empty)
		f.empty = nil
	}
	return empty
}

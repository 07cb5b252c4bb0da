package socketio

import (
	"context"
	"errors"
	"slices"
)

// change waits for the right to change the membership or to write the session, and returns the
// function that releases it.
func (s *Socket) change(ctx context.Context) (done func(), err error) {
	select {
	case s.changing <- struct{}{}:
		return func() { <-s.changing }, nil
	default:
	}
	select {
	case s.changing <- struct{}{}:
		return func() { <-s.changing }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// changeLive is change for the application. It does not wait for a socket that has ended. It waits for
// the commands that the feed has reached, because the application's later changes must take effect
// after them.
func (s *Socket) changeLive(ctx context.Context) (done func(), err error) {
	for {
		s.mu.Lock()
		live := s.placed && !s.stage.gone()
		s.mu.Unlock()
		if !live {
			return nil, ErrDisconnected
		}
		if done, err = s.change(ctx); err != nil {
			return nil, err
		}
		s.mu.Lock()
		if !s.behind() {
			s.mu.Unlock()
			return done, nil
		}
		if s.opened == nil {
			s.opened = make(chan struct{})
		}
		opened := s.opened
		s.mu.Unlock()
		done()
		if err := waitFor(ctx, opened); err != nil {
			return nil, err
		}
	}
}

// behind reports whether commands keep the gate shut while they wait for the right to change,
// which the caller holds. s.mu is held.
func (s *Socket) behind() bool { return s.gate.shut > 0 && s.placed && !s.stage.gone() }

// wake ends the waits for the gate. s.mu is held.
func (s *Socket) wake() {
	if s.opened != nil {
		close(s.opened)
		s.opened = nil
	}
}

// missing returns the names of rooms that the socket is not in, each once.
// s.mu is held.
func (s *Socket) missing(names []string) []string {
	var added []string
	for _, name := range names {
		if s.rooms.current(name) == nil {
			added = append(added, name)
		}
	}
	slices.Sort(added)
	return slices.Compact(added)
}

// background changes the socket on a new goroutine, for a caller that must not wait, and calls
// finally in any case, unless that is nil. A failure cuts the socket.
func (s *Socket) background(f func(context.Context) error, finally func()) {
	srv := s.ns.srv
	srv.spawn(func() {
		ctx, cancel := srv.store()
		defer cancel()
		done, err := s.change(ctx)
		if err == nil {
			defer done()
			err = f(ctx)
		}
		if finally != nil {
			finally()
		}
		if err != nil && !errors.Is(err, ErrDisconnected) {
			s.cut(err)
		}
	})
}

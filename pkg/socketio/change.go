package socketio

import (
	"context"
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
		select {
		case <-opened:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
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
	var news []string
	for _, name := range names {
		if s.rooms.current(name) == nil {
			news = append(news, name)
		}
	}
	slices.Sort(news)
	return slices.Compact(news)
}

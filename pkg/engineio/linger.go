package engineio

// linger notes that a WebSocket may be under way though it does not belong to an open
// connection: it probes, or brings a close to its peer.
func (s *Server) linger(t *websocketTransport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, noted := s.lingering[t]; !noted {
		s.lingering[t] = nil
	}
}

// finished says that a WebSocket has ended, or has become an open connection's.
func (s *Server) finished(t *websocketTransport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if waited := s.lingering[t]; waited != nil {
		close(waited)
	}
	delete(s.lingering, t)
}

// finishing returns a channel that is closed when the client of a closed connection
// has the close or cannot get it any more, nil if that is so.
func (s *Server) finishing(c *Conn) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	t, _ := c.transport.(*websocketTransport)
	waited, lingers := s.lingering[t]
	switch {
	case c.closed == nil:
		return nil
	case lingers:
		if waited == nil {
			waited = make(chan struct{})
			s.lingering[t] = waited
		}
		return waited
	case s.conns[c.id] != c:
		return nil
	case c.forgotten == nil:
		c.forgotten = make(chan struct{})
	}
	return c.forgotten
}

// cutLingering cuts all WebSockets that do not belong to an open connection.
func (s *Server) cutLingering() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range s.lingering {
		t.cut()
	}
}

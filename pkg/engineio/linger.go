package engineio

// linger notes that a WebSocket may be active though it does not belong to an open connection: it
// probes, or delivers a close to its peer.
func (s *Server) linger(t *websocketTransport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, noted := s.lingering[t]; !noted {
		s.lingering[t] = nil
	}
}

// finished notes that a WebSocket has ended, or now belongs to an open connection.
func (s *Server) finished(t *websocketTransport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if waited := s.lingering[t]; waited != nil {
		close(waited)
	}
	delete(s.lingering, t)
}

// finishing returns a channel that is closed when the client of a closed connection has the close
// or can no longer get it. It returns nil if that is already so.
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

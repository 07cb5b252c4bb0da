package engineio

import (
	"errors"
	"slices"
)

// A pollingState says how the requests of a session on long-polling are answered.
type pollingState uint8

const (
	pollingOpen      pollingState = iota // a GET waits for packets
	pollingUpgrading                     // the same, but a WebSocket was opened that has yet to send its probe
	pollingProbed                        // a GET does not wait, so that the client can stop polling
	pollingUpgraded                      // the connection has a WebSocket; Recv returns the messages posted before
	pollingLeaving                       // the client has closed: Recv closes after it has returned the messages posted before
	pollingClosing                       // the connection is closed, and a GET has yet to fetch the close
	pollingGone                          // the connection is closed, and no further GET is served
)

// pollingTransitions has, for each state, those that it may follow.
var pollingTransitions = [...][]pollingState{
	pollingOpen:      {pollingUpgrading, pollingProbed}, // the upgrade has failed
	pollingUpgrading: {pollingOpen},
	pollingProbed:    {pollingUpgrading},
	pollingUpgraded:  {pollingProbed},
	pollingLeaving:   {pollingOpen, pollingUpgrading, pollingProbed, pollingUpgraded},
	pollingClosing:   {pollingOpen, pollingUpgrading, pollingProbed, pollingLeaving},
	pollingGone:      {pollingOpen, pollingUpgrading, pollingProbed, pollingLeaving, pollingClosing},
}

// next changes the state if the transition is possible, and reports whether it is.
func (s *pollingState) next(to pollingState) bool {
	possible := slices.Contains(pollingTransitions[to], *s)
	if possible {
		*s = to
	}
	return possible
}

// A getState is the state of the session's GET.
type getState uint8

const (
	getNone   getState = iota // none, or its answer is being written: the next may arrive
	getWaits                  // until something is queued
	getWrites                 // it was woken as the connection's writer
	getCloses                 // it was woken to send the client the close of the transport
)

// pollingTransport is HTTP long-polling: the answers to the client's GETs carry queued packets, its
// POSTs carry its messages. At most one of each is in flight.
type pollingTransport struct {
	c       *Conn
	arrived chan struct{} // capacity 1: Recv has something to process

	// Guarded by c.mu.
	state   pollingState
	get     getState
	asked   string              // the parameter t of the last GET, or of the handshake
	varies  bool                // that parameter has changed
	woken   chan struct{}       // of the GET, closed when it need not wait any more
	taken   chan struct{}       // capacity 1: Recv has taken something from inbox; nil until awaited
	posting bool                // a POST is being received
	probing *websocketTransport // the candidate of an upgrade
	inbox   []byte              // checked polling bodies that Recv takes packets from
	held    int                 // memory of inbox since the last body arrived
	added   int                 // bytes that have arrived during a pause
	whole   bool                // inbox is one body, of one packet
	ahead   int                 // bodies that have been added to inbox beyond MaxPayload

	exceeding []*arrival // of these bodies
}

func newPollingTransport(c *Conn) *pollingTransport {
	return &pollingTransport{c: c, arrived: make(chan struct{}, 1)}
}

// wake makes a waiting GET continue. It returns false if none waits.
func (p *pollingTransport) wake(get getState) bool {
	if p.get != getWaits {
		return false
	}
	p.get = get
	close(p.woken)
	return true
}

// last returns the packet that ends the client's connection.
func (p *pollingTransport) last() *Packet {
	if errors.Is(p.c.closed, errPeerClosed) {
		return noopPacket // a closed peer needs no close
	}
	return closePacket
}

// close sends the close of the connection to the peer, if a GET waits or may be awaited.
func (p *pollingTransport) close(how closeMode) {
	if p.probing != nil {
		p.probing.interruptRead()
	}
	immediate := how != closeFlush || p.c.server.closing.Load()
	switch {
	case p.get != getNone && p.c.queue.pending == nil:
		p.c.push(p.last())
	case p.get == getNone && immediate:
		p.c.discard()
	case !immediate:
		// The close gets a response of its own. Stock clients act on it before the preceding
		// messages of the same response, and so would process those only after they have
		// reconnected and requested them again.
		p.state.next(pollingClosing)
		p.c.heart.arm(phaseClosing, pollingCloseTimeout)
		return
	}
	p.state.next(pollingGone)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

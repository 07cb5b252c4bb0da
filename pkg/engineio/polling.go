package engineio

import (
	"errors"
	"net/http"
	"time"
)

// pollingTransport is HTTP long-polling: the answers to the client's GETs carry queued packets, its
// POSTs carry its messages. At most one of each is in flight.
type pollingTransport struct {
	c       *Conn
	arrived chan struct{} // capacity 1: Recv has something to process
	taken   chan struct{} // capacity 1: Recv has taken something from inbox

	// Guarded by c.mu.
	get     *poll   // the GET that waits for an answer
	posting bool    // a POST is being received
	probed  bool    // an upgrade is in progress: GETs must not wait
	last    *Packet // the close, for the GET after the one that takes what is queued
	inbox   []byte  // checked polling bodies that Recv takes packets from
	held    int     // memory of inbox since the last body arrived
	added   int     // bytes that have arrived during a pause
	whole   bool    // inbox is one body, of one packet
	ahead   int     // bodies that have been added to inbox beyond MaxPayload
	// goodbye is the end that the client has requested, once Recv has emptied inbox.
	goodbye *CloseError
}

// A poll is a GET that waits. It is woken once.
type poll struct {
	ready chan struct{} // capacity 1
	// writer means that the poll is the connection's writer. A poll that is woken without being the
	// writer tells the client that the transport is closed.
	writer bool
	woken  bool
}

func (g *poll) wake(writer bool) {
	g.writer, g.woken = writer, true
	g.ready <- struct{}{}
}

func newPollingTransport(c *Conn) *pollingTransport {
	return &pollingTransport{c: c, arrived: make(chan struct{}, 1), taken: make(chan struct{}, 1)}
}

func (p *pollingTransport) name() string { return Polling }

// writable reports whether a GET waits for something to send.
func (p *pollingTransport) writable() bool { return p.get != nil && !p.get.woken }

func (p *pollingTransport) start() bool {
	if !p.writable() {
		return false
	}
	p.get.wake(true)
	return true
}

func (p *pollingTransport) end(cause *CloseError, how ending) (unfetched bool) {
	last := closePacket
	if errors.Is(cause, errPeerClosed) {
		last = noopPacket // a closed peer needs no close
	}
	waiting, hurry := p.get != nil, how != endFlush || p.c.server.isClosing()
	switch {
	case waiting && p.c.pending == nil:
		p.c.push(last)
		return false
	case waiting && hurry: // it takes the queue
		return false // the next GET finds the session unknown
	case hurry:
		p.c.discard()
		return false // as above
	}
	// The close gets a response of its own. Stock clients act on it before the preceding messages
	// of the same response, and so would process those only after they have reconnected and
	// requested them again.
	p.last = last
	p.c.arm(phaseClosing, pollingCloseTimeout)
	return true
}

func (p *pollingTransport) cut() {
	p.c.discard()
	if p.writable() {
		p.get.wake(false)
	}
	p.c.stopAnswer()
}

// stopAnswer makes the writing of a response fail. It has no effect if no deadline can be set. c.mu
// is held.
func (c *Conn) stopAnswer() {
	if c.answer != nil {
		_ = c.answer.SetWriteDeadline(time.Unix(1, 0))
	}
}

// retire hands over to another transport: a waiting GET is told so.
func (p *pollingTransport) retire() {
	if p.writable() {
		p.get.wake(false)
	}
	signal(p.arrived)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// serve handles a request of the session.
func (p *pollingTransport) serve(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet:
		p.serveGet(w, r)
	case http.MethodPost:
		p.servePost(w, r)
	default:
		w.WriteHeader(http.StatusInternalServerError)
	}
}

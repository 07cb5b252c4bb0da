package forward

import (
	"maps"
	"net/http"
	"sync"
	"time"
)

// A pending is the answer to a POST that the engine may hold for as long as handlers are busy.
// Until the answer begins it sends informational responses, which show the forwarding node that
// this one has not ended.
type pending struct {
	http.ResponseWriter
	header  http.Header // of the answer; until then signal uses the ResponseWriter's
	timeout time.Duration

	mu    sync.Mutex
	begun bool // the answer has begun, or is no longer awaited
	next  *time.Timer
}

// newPending returns a pending. begin must be called to end it.
func (f *Forwarder) newPending(w http.ResponseWriter) *pending {
	p := &pending{ResponseWriter: w, header: make(http.Header), timeout: f.o.Timeout}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = time.AfterFunc(p.timeout/4, p.signal)
	return p
}

// signal sends the other node a sign that the POST is being handled.
func (p *pending) signal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.begun {
		return
	}
	rc := http.NewResponseController(p.ResponseWriter)
	_ = rc.SetWriteDeadline(time.Now().Add(p.timeout)) // fails on a connection that has ended
	p.ResponseWriter.WriteHeader(http.StatusProcessing)
	_ = rc.SetWriteDeadline(time.Time{})
	p.next.Reset(p.timeout / 4)
}

// begin ends the signals: from now on only the answer uses the connection.
func (p *pending) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.begun {
		return
	}
	p.begun = true
	p.next.Stop()
	maps.Copy(p.ResponseWriter.Header(), p.header)
}

// Header implements [http.ResponseWriter].
func (p *pending) Header() http.Header { return p.header }

// WriteHeader implements [http.ResponseWriter].
func (p *pending) WriteHeader(status int) {
	p.begin()
	p.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (p *pending) Write(b []byte) (int, error) {
	p.begin()
	return p.ResponseWriter.Write(b)
}

// SetWriteDeadline sets the deadline of the answer, which is about to begin.
func (p *pending) SetWriteDeadline(t time.Time) error {
	p.begin()
	return http.NewResponseController(p.ResponseWriter).SetWriteDeadline(t)
}

// Unwrap gives access to the connection's other methods.
func (p *pending) Unwrap() http.ResponseWriter { return p.ResponseWriter }

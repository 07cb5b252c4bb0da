package socketio

import (
	"iter"
	"sync"
)

// Answers are the answers to an event that was sent with EmitWithAck. They are collected as they
// arrive, whether or not All is used, until all have arrived or the timeout expires. Its methods are safe
// for concurrent use.
type Answers struct {
	mu   sync.Mutex
	got  []Answer
	err  error
	done bool
	more chan struct{} // closed when the next answer arrives
}

// All yields the answers in order of arrival and waits for pending ones. If an answer is missing,
// the last value is the error: an *UnansweredError that names the sockets and nodes without one, or
// ErrDisconnected if the server was closed. A second range yields the same values.
func (a *Answers) All() iter.Seq2[Answer, error] {
	return func(yield func(Answer, error) bool) {
		for next := 0; ; {
			a.mu.Lock()
			got, done, err, more := a.got[next:], a.done, a.err, a.more
			a.mu.Unlock()
			for _, answer := range got {
				if !yield(answer, nil) {
					return
				}
			}
			next += len(got)
			switch {
			case !done:
				<-more // bounded by the query's timeout
			case err != nil:
				yield(Answer{}, err)
				return
			default:
				return
			}
		}
	}
}

// add records an answer, or the error that ends them.
func (a *Answers) add(answer Answer, err error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.err = err
	} else {
		a.got = append(a.got, answer)
		close(a.more)
		a.more = make(chan struct{})
	}
	return true
}

// end records that no more answers follow.
func (a *Answers) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done = true
	close(a.more)
}

// gather starts to collect the answers to a query.
func (s *Server) gather(q *query, err error) (*Answers, error) {
	if err != nil {
		return nil, err
	}
	a := &Answers{more: make(chan struct{})}
	if q == nil { // the query was sent to no node
		a.end()
		return a, nil
	}
	s.spawn(func() { // ends with the query
		defer a.end()
		q.each(a.add)
	})
	return a, nil
}

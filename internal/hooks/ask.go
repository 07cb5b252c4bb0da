package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/limit"
)

// A question is one question, in any number of attempts.
type question struct {
	kind    string // the type, as of a CloudEvent
	id      string
	subject string // what it is about, for routing
	owner   string // of its place in the queue
	named   bool   // the client has named it, so the backend recognizes a repeated attempt
}

// Pauses between attempts: the first, and the maximum. Up to half of a pause is random.
const (
	firstPause = 50 * time.Millisecond
	maxPause   = time.Second
)

// ask asks a question until it is answered, a further attempt could do harm, or the time is over. read
// reads the answer, and returns an error if it does not understand it. Errors are of type *[Error].
func (b *Backend) ask(ctx context.Context, q *question, body any, read func(answer) error) error {
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, b.timeout, errTime)
	defer cancel()
	defer context.AfterFunc(b.open, cancel)()
	err := b.attempts(ctx, q, body, read)
	outcome := outcomeOf(err)
	b.metrics.observe(q.kind, outcome, time.Since(began))
	switch outcome {
	case Answered, Refused, canceled:
	default:
		b.log.Warn("backend hook failed", zap.String("type", q.kind), zap.String("id", q.id),
			zap.String("outcome", string(outcome)), zap.Duration("took", time.Since(began)), zap.Error(err))
	}
	return err
}

// errTime means that the question has used up its time.
var errTime = errors.New("timed out")

func (b *Backend) attempts(ctx context.Context, q *question, body any, read func(answer) error) error {
	text, err := encode(body)
	if err != nil {
		return failed("the question cannot be encoded: %w", err)
	}
	turn, err := b.queue.enter(ctx, q.owner, len(text))
	switch {
	case errors.Is(err, errFull):
		b.tally.Refuse(limit.HookQuestions, "question to the backend refused")
		return &Error{Outcome: Busy, Cause: err}
	case errors.Is(err, errBytes):
		b.tally.Refuse(limit.HookBytes, "question to the backend refused")
		return &Error{Outcome: Busy, Cause: err}
	case err != nil:
		return ended(err, false)
	}
	defer turn.leave()
	sent := false   // an earlier attempt may have been processed
	var last *Error // of the attempt before
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		done, err := b.breakers[q.kind].Allow()
		if err != nil {
			return afterwards(&Error{Outcome: Busy, Cause: fmt.Errorf("breaker open: %w", err)}, sent)
		}
		a, refusal := b.post(ctx, q, text)
		if refusal == nil {
			if err := read(a); err != nil {
				refusal = failed("%.200s", err) // which may quote the answer
			}
		}
		if refusal == nil {
			done(nil)
			return nil
		}
		done(refusal)
		sent = sent || refusal.MayHave()
		if last != nil && errors.Is(refusal, errTime) { // the reason is more useful
			refusal.Cause = fmt.Errorf("%w after: %w", refusal.Cause, last.Cause)
		}
		last = refusal
		wait := a.retryAfter
		if wait == 0 {
			wait = pause/2 + rand.N(pause/2)
		}
		if !q.again(refusal, a) {
			return afterwards(refusal, sent)
		}
		turn.pause() // others need not wait for what this question waits for
		if !sleep(ctx, wait) || !turn.resume(ctx) {
			return afterwards(refusal, sent)
		}
	}
}

// again reports whether another attempt may succeed and cannot do harm.
func (q *question) again(e *Error, a answer) bool {
	switch e.Outcome {
	case Busy: // nothing has happened
		return a.status == 0 || a.retryAfter > 0
	case Unavailable:
		return q.named
	}
	return false
}

// afterwards returns the error of the last attempt. If an earlier one may have been processed, so may
// the question.
func afterwards(e *Error, sent bool) *Error {
	if sent && e.Outcome == Busy {
		return &Error{Outcome: Unavailable, Cause: e.Cause}
	}
	return e
}

// ended returns the error of a context that has ended.
func ended(cause error, sent bool) *Error {
	switch {
	case !errors.Is(cause, errTime) && !errors.Is(cause, context.DeadlineExceeded):
		return &Error{Outcome: canceled, Cause: context.Canceled, sent: sent}
	case sent:
		return &Error{Outcome: Timeout, Cause: cause}
	}
	return &Error{Outcome: Busy, Cause: cause}
}

// sleep waits, and reports whether it could: not if ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= d {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// encode returns v as JSON.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), nil
}

package hooks

import (
	"errors"
	"fmt"
)

// An Outcome is how a question ended, for programs: in metrics and, unless it was answered or refused,
// in the acks of clients.
type Outcome string

// The outcomes.
const (
	Answered    Outcome = "answered"
	Refused     Outcome = "refused"     // by the backend, with a code
	Busy        Outcome = "busy"        // not processed: it was not sent, or the backend has requested a later retry
	Unavailable Outcome = "unavailable" // the backend failed; it may have processed the question
	Timeout     Outcome = "timeout"     // likewise
	Failed      Outcome = "hook_failed" // the answer was not understood; the backend has processed the question
	canceled    Outcome = "canceled"    // the client has left, or the node stops
)

var outcomes = []Outcome{Answered, Refused, Busy, Unavailable, Timeout, Failed, canceled}

// An Error is the reason why a question was not answered.
type Error struct {
	Outcome Outcome
	// Code and Detail are the backend's words for the client if Outcome is Refused.
	Code, Detail string
	// Cause is for the log. It contains nothing of the question and nothing secret.
	Cause error

	sent bool // of a question that was canceled
}

func (e *Error) Error() string {
	if e.Outcome == Refused {
		return "hooks: refused: " + e.Code
	}
	return fmt.Sprintf("hooks: %s: %v", e.Outcome, e.Cause)
}

func (e *Error) Unwrap() error { return e.Cause }

// MayHave reports whether the backend may have processed the question.
func (e *Error) MayHave() bool {
	return e.Outcome == Unavailable || e.Outcome == Timeout || e.Outcome == Failed || e.sent
}

// outcomeOf returns the outcome of a question.
func outcomeOf(err error) Outcome {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Outcome
	}
	return Answered
}

// isFailure reports whether an attempt counts as a failure of the backend. A refusal does not, and
// neither does the request to come later, with which a backend protects itself, nor an answer that is not
// understood: the backend is there, and what a client has sent may be the reason.
func isFailure(err error) bool {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Outcome != Refused && e.Outcome != Failed && !errors.Is(err, errRetryLater)
	}
	return err != nil
}

// errRetryLater means that the backend has requested a later retry.
var errRetryLater = errors.New("backend requested a later retry")

func failed(format string, args ...any) *Error {
	return &Error{Outcome: Failed, Cause: fmt.Errorf(format, args...)}
}

package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/rejoin-io/rejoin/internal/auth"
	"github.com/rejoin-io/rejoin/internal/hooks"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// A code says what kind of failure an ack reports, for programs.
type code string

const (
	badRequest    code = "bad_request"
	reservedEvent code = "reserved_event"
	unknownEvent  code = "unknown_event"
	notMember     code = "not_member"
	forbidden     code = "forbidden"
	tooMany       code = "too_many"
	rateLimited   code = "rate_limited"
	unavailable   code = "unavailable"
	timeout       code = "timeout"
	keyReused     code = "key_reused"
	partlyDone    code = "partly_done"
	busy          code = "busy"
)

// A failed is an error with its code.
type failed struct {
	code    code
	message string
}

func (f *failed) Error() string { return f.message }

func fail(c code, format string, args ...any) error {
	return &failed{c, fmt.Sprintf(format, args...)}
}

type failureReply struct {
	OK      bool   `json:"ok"`
	Code    code   `json:"code"`
	Message string `json:"message"`
	// MayHave: the requested operation may have completed.
	MayHave bool `json:"mayHaveHappened,omitempty"`
}

// failure returns the ack that reports an error. It takes an expired timeout from the request's
// context, because calls within the cluster have deadlines of their own, which their errors name as
// well.
func failure(ctx context.Context, err error) failureReply {
	var f *failed
	var refused *auth.Error
	var unanswered *hooks.Error
	switch {
	case errors.As(err, &unanswered):
		return unansweredReply(unanswered)
	case errors.As(err, &refused):
		return failureReply{Code: code(refused.Code), Message: refused.Message}
	case errors.As(err, &f):
		return failureReply{Code: f.code, Message: f.message}
	case errors.Is(err, socketio.ErrTooManyRooms), errors.Is(err, socketio.ErrTooLarge):
		return failureReply{Code: tooMany, Message: err.Error()}
	case errors.Is(err, socketio.ErrReused):
		return failureReply{Code: keyReused, Message: "the id was used for another event", MayHave: errors.Is(err, adapter.ErrUnavailable)}
	case errors.Is(err, socketio.ErrIncomplete):
		return failureReply{Code: partlyDone, Message: "it was sent to some of the rooms only, and it is too late for the others", MayHave: true}
	case errors.Is(err, adapter.ErrNotPublished):
		return failureReply{Code: unavailable, Message: "cluster unavailable; the event was not published"}
	case errors.Is(err, adapter.ErrUndecodable):
		return failureReply{Code: unavailable, Message: "this node cannot decode an event of the room"}
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return failureReply{Code: timeout, Message: "timed out; the operation may have completed", MayHave: true}
	}
	return failureReply{Code: unavailable, Message: "cluster unreachable; the operation may have completed", MayHave: true}
}

// refusal returns a middleware's error for the client: a connect_error, or, if a later attempt may
// succeed, an error that makes the client retry.
func refusal(ctx context.Context, err error) error {
	if errors.Is(err, socketio.ErrTemporary) {
		return err
	}
	f := failure(ctx, err)
	if f.Code == unavailable || f.Code == timeout || unansweredQuestion(err) {
		return fmt.Errorf("%w: %w", socketio.ErrTemporary, err)
	}
	return &socketio.ConnectError{Message: f.Message, Data: map[string]code{"code": f.Code}}
}

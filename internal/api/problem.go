package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// A code is the kind of failure that a problem reports, for programs. If the built-in application
// has the same kind, it has the same code.
type code struct {
	name   string
	status int
}

var (
	badRequest       = code{"bad_request", http.StatusBadRequest}
	reservedEvent    = code{"reserved_event", http.StatusBadRequest}
	tooMany          = code{"too_many", http.StatusBadRequest}
	unavailable      = code{"unavailable", http.StatusServiceUnavailable}
	timedOut         = code{"timeout", http.StatusGatewayTimeout}
	noAPIKeys        = code{"no_api_keys", http.StatusForbidden}
	unauthorized     = code{"unauthorized", http.StatusUnauthorized}
	missingScope     = code{"missing_scope", http.StatusForbidden}
	notFound         = code{"not_found", http.StatusNotFound}
	unknownNamespace = code{"unknown_namespace", http.StatusNotFound}
	methodNotAllowed = code{"method_not_allowed", http.StatusMethodNotAllowed}
	tooLarge         = code{"too_large", http.StatusRequestEntityTooLarge}
	notJSON          = code{"not_json", http.StatusUnsupportedMediaType}
	notTried         = code{"not_tried", http.StatusServiceUnavailable}
	underWay         = code{"under_way", http.StatusConflict}
	outcomeUnknown   = code{"outcome_unknown", http.StatusConflict}
	partlyDone       = code{"partly_done", http.StatusConflict}
	answerNotKept    = code{"answer_not_kept", http.StatusConflict}
	keyReused        = code{"key_reused", http.StatusUnprocessableEntity}
)

// A failure is an error with its code.
type failure struct {
	code   code
	detail string
	// open means that the requested operation may have completed in spite of the failure. After any
	// other failure it has not, and the call can be retried.
	open  bool
	cause error // for the log; nil for none
}

func (f *failure) Error() string { return f.detail }

func (f *failure) Unwrap() error { return f.cause }

// maxDetail is the maximum length of a detail, in bytes: it may quote a whole body, and goes into
// the log.
const maxDetail = 1000

func fail(c code, format string, args ...any) *failure {
	detail := fmt.Sprintf(format, args...)
	if len(detail) > maxDetail {
		detail = strings.ToValidUTF8(detail[:maxDetail], "") + "…"
	}
	return &failure{code: c, detail: detail}
}

// open is fail with an unknown outcome.
func open(c code, detail string) *failure { return &failure{code: c, detail: detail, open: true} }

// mayHave states that the outcome of the operation is unknown.
const mayHave = "; the operation may have completed"

// asFailure translates an error of the library for the caller. Details of the cluster are only
// logged.
func asFailure(err error, may string) *failure {
	maybe := func(c code, detail string) *failure {
		return &failure{code: c, detail: detail + may, open: may != "", cause: err}
	}
	var f *failure
	var bad *packet.Error
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &bad):
		return fail(badRequest, "unsupported arguments: %v", bad)
	case errors.Is(err, socketio.ErrReserved):
		return fail(reservedEvent, "%v", err)
	case errors.Is(err, socketio.ErrRoomName):
		return fail(badRequest, "%v", err)
	case errors.Is(err, socketio.ErrReused):
		f := fail(keyReused, "this Idempotency-Key was used for another call")
		f.open = errors.Is(err, adapter.ErrUnavailable)
		return f
	case errors.Is(err, socketio.ErrIncomplete):
		return open(partlyDone, "it was published for some of the rooms only, and it is too late for the others")
	case errors.Is(err, adapter.ErrNotPublished):
		return &failure{code: unavailable, detail: "cluster unavailable; the event was not published", cause: err}
	case errors.Is(err, socketio.ErrTooLarge):
		return fail(tooMany, "%v", err)
	case errors.Is(err, adapter.ErrUndecodable):
		return &failure{code: unavailable, detail: "this node cannot decode an event of the room", cause: err}
	case errors.Is(err, adapter.ErrUnavailable):
		return maybe(unavailable, "cluster unreachable")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return maybe(timedOut, "timed out")
	case errors.Is(err, socketio.ErrDisconnected):
		return maybe(unavailable, "the node is stopping")
	}
	return &failure{code: unavailable, detail: "temporarily unavailable", cause: err}
}

// A problem is a problem document of RFC 9457. Its type stays about:blank: the code identifies the
// problem, docs/api.md explains it.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
	Open   bool   `json:"mayHaveHappened"`
}

func (f *failure) problem() problem {
	return problem{"about:blank", http.StatusText(f.code.status), f.code.status, f.detail, f.code.name, f.open}
}

package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// TestOnlyTheRequestsOwnDeadlineIsATimeout: a call to Redis that times out before the
// request means that the cluster is unavailable.
func TestOnlyTheRequestsOwnDeadlineIsATimeout(t *testing.T) {
	under, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	over, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	within := fmt.Errorf("%w: Redis did not answer within 1s: %w", adapter.ErrUnavailable, context.DeadlineExceeded)
	for _, c := range []struct {
		what string
		ctx  context.Context
		err  error
		want code
	}{
		{"a call's deadline", under, within, unavailable},
		{"the request's deadline", over, fmt.Errorf("%w: %w", adapter.ErrUnavailable, context.Cause(over)), timeout},
		{"a call's deadline, when the socket is gone", gone, within, unavailable},
		{"Redis refuses", under, errors.New("OOM"), unavailable},
		{"it was not sent", under, fmt.Errorf("%w: %w", adapter.ErrNotPublished, context.DeadlineExceeded), unavailable},
		{"a mistake that is found too late", over, fail(badRequest, "missing room"), badRequest},
		{"too many rooms", under, fmt.Errorf("socketio: join: %w", socketio.ErrTooManyRooms), tooMany},
	} {
		if got := failure(c.ctx, c.err); got.OK || got.Code != c.want || got.Message == "" {
			t.Errorf("%s: %+v, want %s", c.what, got, c.want)
		}
	}
}

// A client is told that its event may have been published only if it may have been.
func TestFailureSaysWhetherItMayHaveHappened(t *testing.T) {
	for err, may := range map[error]bool{adapter.ErrUnavailable: true, adapter.ErrNotPublished: false} {
		f := failure(t.Context(), fmt.Errorf("socketio: publish: %w: the cause", err))
		if f.Code != unavailable || strings.Contains(f.Message, "may have") != may || f.MayHave != may {
			t.Errorf("%v: got %+v, want %s, may have completed: %v", err, f, unavailable, may)
		}
	}
}

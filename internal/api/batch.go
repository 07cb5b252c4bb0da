package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// Limits of batches.
const (
	maxBatch     = 500
	batchTimeout = 3 * timeout
)

// A batchResult is the result of one emit: its answer or its problem.
type batchResult struct {
	Status  int      `json:"status"`
	Offset  *string  `json:"offset,omitempty"`
	Problem *problem `json:"problem,omitempty"`
}

// batch emits one event after the other, so they are in the order of the list. Invalid ones are
// skipped. After an emit that could not be sent the rest are not tried, because they would precede
// it or also fail. One that was sent in part long ago stays so, and the rest follow it. With a key
// each emit has a name of its own, so that a repeated call emits those that are missing.
func (a *API) batch(ctx context.Context, body []byte, k *callKey) (any, error) {
	var all struct {
		Emits list[json.RawMessage] `json:"emits"`
	}
	if err := a.decode(ctx, body, &all); err != nil {
		return nil, err
	}
	switch n := len(all.Emits); {
	case n == 0:
		return nil, fail(badRequest, "emits must be a list of objects")
	case n > maxBatch:
		return nil, fail(tooMany, "at most %d emits in one batch", maxBatch)
	}
	results := make([]batchResult, len(all.Emits))
	stopped, sent := false, false
	for i, emit := range all.Emits {
		if stopped {
			results[i] = refused(fail(notTried, "an earlier emit failed; this one was not sent"))
			continue
		}
		o := k.next()
		offset, err := a.emitOne(ctx, emit, o)
		if err == nil {
			results[i] = batchResult{Status: http.StatusOK, Offset: &offset}
			sent = sent || o != nil && !o.Repeated
			continue
		}
		f := asFailure(err, mayHave)
		k.drop(!f.open)
		if f.code == keyReused { // as the others will be
			f.open = f.open || sent
			return nil, f
		}
		results[i] = refused(f)
		if f.code.status >= http.StatusInternalServerError {
			stopped = true
			a.note("batch", f)
		}
	}
	return struct {
		Results []batchResult `json:"results"`
	}{results}, nil
}

func (a *API) emitOne(ctx context.Context, body []byte, o *socketio.Once) (offset string, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var e emitBody
	if err := a.decode(ctx, body, &e); err != nil {
		return "", err
	}
	answer, err := a.publish(ctx, e, o)
	return answer.Offset, err
}

func refused(f *failure) batchResult {
	p := f.problem()
	return batchResult{Status: p.Status, Problem: &p}
}

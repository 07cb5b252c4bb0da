package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/api/idempotency"
)

// Limits of remembered calls.
const (
	maxKey    = 255       // characters of an Idempotency-Key
	maxAnswer = 256 << 10 // bytes of a response that is kept
)

// endMargin is the time that a call may take in addition to its timeout: to begin and to
// finish.
const endMargin = 10 * time.Second

// once runs a call if its key is new, and otherwise answers from the record of the key.
func (a *API) once(ctx context.Context, r *http.Request, key string, body []byte, timeout time.Duration, run func() response) response {
	if !visible(key) || len(key) > maxKey {
		return failed(fail(badRequest, "an Idempotency-Key has 1 to %d visible characters of ASCII", maxKey))
	}
	c := idempotency.NewClaim(callerOf(ctx).own(key), fingerprint(r.URL.Path, body))
	former, err := a.o.Calls.Claim(ctx, c)
	switch {
	case errors.Is(err, idempotency.ErrFull):
		return failed(&failure{code: unavailable, detail: "too many keys are remembered; nothing has happened", cause: err})
	case err != nil:
		// If the key was claimed in spite of the error, it must not block a retry.
		a.settle(c, a.o.Calls.Free(ctx, c))
		return failed(&failure{code: unavailable, detail: "the key can't be looked up; nothing has happened", cause: err})
	case former != nil:
		return again(c, *former, timeout)
	}
	res := run()
	if f := res.failure; f != nil && !f.open {
		a.settle(c, a.o.Calls.Free(ctx, c))
		return res
	}
	kept := idempotency.Response{Status: res.status, Body: res.body}
	if len(kept.Body) > maxAnswer {
		f := open(answerNotKept, "the call was executed, but its answer is too large to be stored")
		kept = idempotency.Response{Status: f.problem().Status, Body: encode(f.problem())}
	}
	a.settle(c, a.o.Calls.Finish(ctx, c, kept))
	return res
}

// again answers a repeated call.
func again(c idempotency.Claim, former idempotency.Record, timeout time.Duration) response {
	switch kept := former.Response; {
	case former.Call != c.Call:
		return failed(fail(keyReused, "this Idempotency-Key was used for another call"))
	case kept == nil && former.Age < timeout+endMargin:
		return failed(open(underWay, "the call with this Idempotency-Key is in progress; repeat the call for its answer"))
	case kept == nil:
		return failed(open(outcomeUnknown, "the outcome of the call with this Idempotency-Key is unknown"+mayHave))
	default:
		res := response{status: kept.Status, body: kept.Body, replayed: true}
		switch {
		case kept.Status >= http.StatusBadRequest:
			res.contentType = contentProblem
		case kept.Status != http.StatusNoContent:
			res.contentType = contentJSON
		}
		return res
	}
}

// settle logs that a key could not be finished or freed. The key stays claimed, and a repeated call
// is answered that the outcome is unknown.
func (a *API) settle(c idempotency.Claim, err error) {
	if err != nil {
		a.log.Warn("outcome of an API call not stored", zap.String("claim", c.ID), zap.Error(err))
	}
}

// own returns a caller's Idempotency-Key as it is stored. Callers with a name have keys of their own:
// otherwise one could take the keys of others, and get answers that its scope does not include.
func (c *Caller) own(key string) string {
	if c.Name == "" {
		return key
	}
	return c.Name + " " + key // no key has a space
}

// fingerprint identifies a call by its content, not by its caller.
func fingerprint(path string, body []byte) string {
	h := sha256.New()
	h.Write([]byte(path + "\n"))
	h.Write(body)
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}

package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/api/idempotency"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// Limits of remembered calls.
const (
	maxKey    = 255       // characters of an Idempotency-Key
	maxAnswer = 256 << 10 // bytes of a response that is kept
)

// A callKey is the Idempotency-Key of a call. It names what the call publishes.
type callKey struct {
	key     string           // as it is stored, see [Caller.own]
	content string           // identifies the call by its path and body, not by its caller
	onces   []*socketio.Once // of the events and commands of the call; nil for those that failed
	first   int              // the index of the first one that is not invalid, as far as is known
}

// newCallKey returns the key of a call by c, or nil if it has none.
func newCallKey(c *Caller, r *http.Request, body []byte) (*callKey, *failure) {
	list := r.Header.Values("Idempotency-Key")
	switch {
	case len(list) == 0:
		return nil, nil
	case len(list) > 1:
		return nil, fail(badRequest, "duplicate Idempotency-Key header")
	case !visible(list[0]) || len(list[0]) > maxKey:
		return nil, fail(badRequest, "an Idempotency-Key has 1 to %d visible characters of ASCII", maxKey)
	}
	h := sha256.New()
	h.Write([]byte(r.URL.Path + "\n"))
	h.Write(body)
	return &callKey{key: c.own(list[0]), content: base64.RawURLEncoding.EncodeToString(h.Sum(nil))}, nil
}

// next returns the name of the next event or command of the call; nil if the call has no key. Every call
// has one with the number 0, where another call with the key meets it.
func (k *callKey) next() *socketio.Once {
	if k == nil {
		return nil
	}
	index := len(k.onces)
	number := index
	if index == k.first {
		number = 0
	}
	// A name and a key have no spaces. The index is part of the content: if nodes of two releases do not agree on what
	// is invalid, a repeated call is refused, and does not take one of its events for another one.
	o := &socketio.Once{ID: "api " + k.key + " " + strconv.Itoa(number), Content: k.content + " " + strconv.Itoa(index)}
	k.onces = append(k.onces, o)
	return o
}

// drop forgets what next has named last, because it failed. invalid means that its name was not used.
func (k *callKey) drop(invalid bool) {
	if k == nil {
		return
	}
	last := len(k.onces) - 1
	k.onces[last] = nil
	if invalid && last == k.first {
		k.first++
	}
}

// repeated reports whether the call has repeated something and published nothing.
func (k *callKey) repeated() (repeated bool) {
	if k == nil {
		return false
	}
	for _, o := range k.onces {
		if o != nil && !o.Repeated {
			return false
		}
		repeated = repeated || o != nil
	}
	return repeated
}

// endMargin is the time that a call may take in addition to its timeout: to begin and to
// finish.
const endMargin = 10 * time.Second

// claimed runs a call if its key is new, and otherwise answers from the record of the key.
func (a *API) claimed(ctx context.Context, k *callKey, timeout time.Duration, run func() response) response {
	c := idempotency.NewClaim(k.key, k.content)
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
		a.log.Warn("API call outcome not stored", zap.String("claim", c.ID), zap.Error(err))
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

func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}

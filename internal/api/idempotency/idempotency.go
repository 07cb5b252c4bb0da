// Package idempotency remembers the results of calls with a key, so that a repeated call is
// executed once, by any node, immediately or later.
//
// A caller claims its key first, acts, and then records the result. A repeated call with a claimed
// key gets the record. If a claim is never finished, because its node crashed, it is unknown
// whether the call was executed: the key stays claimed, so that it is not executed again.
package idempotency

import (
	"context"
	"crypto/rand"
	"errors"
	"time"
)

// Lifetime is the TTL of a key from its claim on.
const Lifetime = 10 * time.Minute

// Errors that callers may test for.
var (
	// ErrLost: the key no longer belongs to this claim. It has expired or was forgotten.
	ErrLost = errors.New("idempotency: claim lost")
	// ErrFull: the store is full. The key was not claimed.
	ErrFull = errors.New("idempotency: full")
)

// A Claim is one attempt to make a call.
type Claim struct {
	Key  string
	Call string // identifies the call: a hash of its content
	ID   string // unique, of idLength characters
}

// NewClaim returns a claim with a unique id.
func NewClaim(key, call string) Claim { return Claim{key, call, rand.Text()} }

const idLength = 26

// A Response is the response to a call.
type Response struct {
	Status int    `json:"status"`
	Body   []byte `json:"body,omitempty"`
}

// A Record is the state of a claimed key.
type Record struct {
	Call     string        // the claim's
	Age      time.Duration // since the claim
	Response *Response     // nil until it is finished
}

// A Store remembers keys. Its methods are safe for concurrent use, and return when the context
// ends. After an error that is not one of this package the outcome is unknown.
type Store interface {
	// Claim claims a free key and returns nil, or otherwise the key's record. Repeating the same
	// claim has no further effect.
	Claim(ctx context.Context, c Claim) (*Record, error)
	// Finish stores the response of a claim until the key expires. It returns ErrLost if the claim
	// no longer exists. The response must not be changed afterwards.
	Finish(ctx context.Context, c Claim, r Response) error
	// Free forgets a key, if it belongs to this claim: the call had no effect.
	Free(ctx context.Context, c Claim) error
}

// Package idempotency remembers what became of calls that bear a key, so that one
// that is made twice is carried out once: by whichever node, at once or later.
//
// Who makes a call claims its key first, acts, and then says what came of it. A
// key that is taken tells the next one what is known. Where a claim is never
// finished, since its node died in between, nobody knows whether the call was
// carried out: the key stays taken, so that it is not carried out again.
package idempotency

import (
	"context"
	"crypto/rand"
	"errors"
	"time"
)

// Lifetime is how long a key is remembered, from its claim on.
const Lifetime = 10 * time.Minute

// Errors that callers decide by.
var (
	// ErrLost: the key is not this claim's any more. Its life has ended, or it was
	// forgotten.
	ErrLost = errors.New("idempotency: the claim is lost")
	// ErrFull: more can't be remembered now. The key was not claimed.
	ErrFull = errors.New("idempotency: full")
)

// A Claim is one attempt to make a call.
type Claim struct {
	Key  string
	Call string // what tells two calls apart: a hash of all that they ask for
	id   string
}

// NewClaim returns a claim that is told from all others.
func NewClaim(key, call string) Claim { return Claim{key, call, rand.Text()} }

// ID returns what tells the claim from others, [IDLength] characters.
func (c Claim) ID() string { return c.id }

// IDLength is how long the ids of claims are.
const IDLength = 26

// A Response is what a call was answered with.
type Response struct {
	Status int    `json:"status"`
	Body   []byte `json:"body,omitempty"`
}

// A Record is what is known of a key that is taken.
type Record struct {
	Call     string        // the claim's
	Age      time.Duration // since the claim
	Response *Response     // nil until it is finished
}

// A Store remembers keys. Its methods may be called at once, and give up when the
// context ends. After an error that is none of this package the outcome is open.
type Store interface {
	// Claim takes a key that is free and returns nil, or else what is known of it. A
	// claim that is made twice is one.
	Claim(ctx context.Context, c Claim) (*Record, error)
	// Finish keeps the response of a claim for the rest of the key's life. It is
	// ErrLost where there is none left. The response is not changed afterwards.
	Finish(ctx context.Context, c Claim, r Response) error
	// Free forgets a key, if it is this claim's: the call did nothing.
	Free(ctx context.Context, c Claim) error
}

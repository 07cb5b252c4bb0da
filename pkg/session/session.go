// Package session keeps what outlives a connection: everything it takes for
// another node to be the same socket again.
//
// A session has one owner, the node that serves its socket, and a fence that
// grows with every take-over. A node that was overtaken holds an old fence and
// can change nothing more. [Memory] is the store for nodes that share a process
// and the meaning of [Store]; package sessiontest holds other stores to it.
package session

import (
	"context"
	"errors"
	"time"
)

// Errors that callers decide by.
var (
	// ErrNotFound: the session expired, was dropped, or never was.
	ErrNotFound = errors.New("session: not found")
	// ErrFenced: another node has claimed the session since.
	ErrFenced = errors.New("session: fenced off")
	// ErrUndecodable: this node cannot decode the stored session, because it is
	// malformed or a newer version has stored it. It is as it was.
	ErrUndecodable = errors.New("session: undecodable")
	// ErrExists: a session with this private id is there already.
	ErrExists = errors.New("session: exists already")
	// ErrTooLarge: the session has more bytes than the store takes. What is stored is as it was.
	ErrTooLarge = errors.New("session: too large")
)

// A Session is what is needed to be one socket again. It is a value: stores
// copy what they are given and what they return.
type Session struct {
	PID       string // the private id that the client proves itself with; a secret
	ID        string // the public socket id
	Namespace string
	User      string // whose session it is; "" if nobody said
	Data      []byte // the application's
	Epoch     string // the history that the session was born in
	Rooms     []Membership
	Owner     string // the node that serves the socket
	Fence     uint64 // grows by one with every claim; a new session has 1
}

// A Membership is one stay in one room, as an interval of positions: the member
// gets the events after Join, up to and including Leave. An empty Leave means
// that it is still in. Positions are opaque strings here, as is the kind.
type Membership struct {
	Kind  uint8
	Name  string
	Join  string
	Leave string
}

// A Ref names a session as its owner knows it.
type Ref struct {
	PID   string
	Fence uint64
}

// A Store holds the sessions of the whole cluster. Its methods may be called at
// once; each returns when its context ends, or earlier, with the context's error
// wrapped. The caller keeps the writes of one session one after another. What
// happened to a session when a call fails with any error but those above, or
// that of check, is not known.
type Store interface {
	// Create stores a new session with the fence 1, whatever s says. It lives for
	// ttl from now unless that is prolonged. ErrExists if its PID is taken, ErrTooLarge.
	Create(ctx context.Context, s Session, ttl time.Duration) error

	// Save replaces a session and makes it live for ttl from now. It never
	// re-creates one: ErrNotFound if it is gone, ErrFenced if its fence is not the
	// one of the last claim, ErrTooLarge.
	Save(ctx context.Context, s Session, ttl time.Duration) error

	// Claim makes a node the owner, adds one to the fence, makes the session live
	// for ttl from now, and returns it as it is then, with Owner set to by. The
	// former owner's name comes back too. check, unless nil, sees the session
	// first, maybe more than once; if it returns an error Claim returns that, and
	// nothing has changed. Of several claims at once each gets a fence of its own.
	// A claim never deletes, so one that was lost on the way can be repeated.
	// ErrNotFound if the session no longer exists, ErrUndecodable if it cannot be decoded.
	Claim(ctx context.Context, pid, by string, ttl time.Duration, check func(Session) error) (s Session, former string, err error)

	// Refresh makes sessions live for ttl from now: those that are still there
	// and whose fence is the one given. The others come back in gone.
	Refresh(ctx context.Context, live []Ref, ttl time.Duration) (gone []Ref, err error)

	// Drop deletes a session. ErrFenced if its fence is not the one of the last
	// claim; a session that is gone already is no error.
	Drop(ctx context.Context, ref Ref) error
}

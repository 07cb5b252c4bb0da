// Package session stores the state that outlives a connection: everything that another node needs
// to continue the same socket.
//
// A session has one owner, the node that serves its socket, and a fence that grows with every
// claim. A former owner holds an old fence and can no longer change the session. [Memory] is the
// store for nodes that share a process and the reference for [Store]; package sessiontest tests
// other stores against it.
package session

import (
	"context"
	"errors"
	"time"
)

// Errors that callers may test for.
var (
	// ErrNotFound means that the session expired, was dropped, or never existed.
	ErrNotFound = errors.New("session: not found")
	// ErrFenced means that another node has claimed the session since.
	ErrFenced = errors.New("session: fenced")
	// ErrUndecodable means that this node cannot decode the stored session, because it is malformed
	// or a newer version has stored it. The stored session is unchanged.
	ErrUndecodable = errors.New("session: undecodable")
	// ErrExists means that a session with this private id already exists.
	ErrExists = errors.New("session: already exists")
	// ErrTooLarge means that the session exceeds the store's size limit. The stored session is
	// unchanged.
	ErrTooLarge = errors.New("session: too large")
)

// A Session is the state needed to continue a socket. It is a value: stores copy their
// arguments and results.
type Session struct {
	PID       string // the private id that authenticates the client; a secret
	ID        string // the public socket id
	Namespace string
	User      string // the session's user; "" if none was set
	Data      []byte // the application's data
	Epoch     string // the history in which the session was created
	Rooms     []Membership
	Owner     string // the node that serves the socket
	Fence     uint64 // grows by one with every claim; a new session has 1
}

// A Membership is one stay in one room, as an interval of positions: the member gets the events
// after Join, up to and including Leave. An empty Leave means that the member is still in the room.
// Positions and the kind are opaque here.
type Membership struct {
	Kind  uint8  // of the room
	Name  string // of the room
	Join  string // position of the join
	Leave string // position of the leave; "" if the member is still in the room
}

// A Ref names a session with the fence that its owner knows.
type Ref struct {
	PID   string
	Fence uint64
}

// A Peeker is a [Store] that can show a session without claiming it.
type Peeker interface {
	// Peek returns a session as it is, and the time until it expires. It returns the errors of
	// Claim. Nothing changes.
	Peek(ctx context.Context, pid string) (s Session, left time.Duration, err error)
}

// A Store holds the sessions of the whole cluster. Its methods are safe for concurrent use. Each
// returns at the latest when its context ends; the error then wraps the context's error. The caller
// serializes the writes of one session. After any error other than those above, or that of check,
// it is unknown whether the call had an effect.
type Store interface {
	// Create stores a new session with the fence 1, ignoring s.Fence. The session expires after
	// ttl unless its expiry is extended. Create returns ErrExists if its PID is in use, or
	// ErrTooLarge.
	Create(ctx context.Context, s Session, ttl time.Duration) error

	// Save replaces a session and sets its expiry to ttl from now. It never creates one: it returns
	// ErrNotFound if the session no longer exists, ErrFenced if its fence is not that of the last
	// claim, or ErrTooLarge. It reports the bytes that it sends to the function of [OnWrite].
	Save(ctx context.Context, s Session, ttl time.Duration) error

	// Claim makes a node the owner, adds one to the fence, sets the expiry to ttl from now, and
	// returns the session in its new state, with Owner set to by. It also returns the former
	// owner's name. check, unless nil, is called with the session first, possibly more than once;
	// if it returns an error Claim returns that, and nothing has changed. Concurrent claims get
	// different fences. A claim never deletes, so a claim whose answer was lost can be repeated.
	// Claim returns ErrNotFound if the session no longer exists, and ErrUndecodable if it cannot be
	// decoded.
	Claim(ctx context.Context, pid, by string, ttl time.Duration, check func(Session) error) (s Session, former string, err error)

	// Refresh sets the expiry of sessions to ttl from now, if they still exist with the given
	// fence. The others are returned in gone.
	Refresh(ctx context.Context, live []Ref, ttl time.Duration) (gone []Ref, err error)

	// Drop deletes a session. It returns ErrFenced if the session's fence is not that of the last
	// claim; it is not an error if the session no longer exists.
	Drop(ctx context.Context, ref Ref) error
}

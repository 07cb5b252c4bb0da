// Package redis stores sessions in Redis.
//
// A session is one string, so that it has a slot of its own in a Cluster and
// every write is one script that touches one key:
//
//	<prefix>s:<SHA-256 of the private id, base64url>
//
// The private id itself is a secret, and keys appear in logs and in MONITOR. The value is
//
//	fence   16 hexadecimal digits
//	write   16 decimal digits
//	body    a Session of package session, without its private id and fence
//
// The fence distinguishes owners, and the write number distinguishes the writes of one owner. A
// write that its caller gave up may still be in flight, on a stalled connection or server, and run
// long after its successor: it would restore rooms that were left. Its number is smaller, so it has
// no effect. Numbers are times in microseconds, and each is greater than all that the store has
// used before.
//
// A TTL counts from its request, not from its execution in Redis: sessions must not outlive the
// backlogs of their rooms, and a write may wait in a stalled server for longer than backlogs
// outlast sessions. So every write says when it was requested, by the server's own time, which its
// answers contain; after a minute without an answer the store reads that time first. A write that
// arrives after its TTL has expired changes nothing and fails.
//
// A save of 400 bytes costs Redis 3.6 µs, and a quarter more for the time. A hash of fence, number
// and body would cost the same, but the string takes two thirds of the hash's memory.
//
// For a session of more than 1 KiB, which has dozens of rooms, only the differences to the value in
// Redis are sent. A script applies them if the head is still the one that the store has written or
// read. The resulting value is the same as if it had been sent whole.
//
// Calls are not sent one by one: calls that arrive while a pipeline is in flight go out with the
// next, one pipeline after another to each server.
package redis

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/pkg/session"
)

// Options are the settings of a [Store]. Zero fields mean the defaults.
type Options struct {
	Prefix          string        // prefix of all keys: "rejoin:" by default
	Timeout         time.Duration // maximum time of one pipeline: 3 seconds by default
	MaxSize         int           // maximum size of a session in bytes, beyond which it is session.ErrTooLarge: 1 MiB by default
	MaxWaiting      int           // maximum number of calls that wait for their pipeline: 16,384 by default
	MaxWaitingBytes int           // maximum total size of these calls in bytes: 64 MiB by default
}

// Errors in addition to those of package session.
var (
	// ErrFull means that too many calls are pending. This one was not sent.
	ErrFull = errors.New("session/redis: too many pending calls")
	// ErrClosed means that the store was closed. A pending call was not sent.
	ErrClosed = errors.New("session/redis: closed")
)

// A Store is a [session.Store] in Redis. Its errors contain no private id.
type Store struct {
	client   redis.UniversalClient
	options  Options
	lastTime atomic.Int64 // the last write number
	counts   counts
	known    known

	patchFrom int // the size from which differences are sent

	open    context.Context // ends with Close
	close   context.CancelCauseFunc
	running sync.WaitGroup // lanes
	mu      sync.Mutex
	lanes   map[string]*lane // by the address of the server; "" if there is only one
}

var _ session.Store = (*Store)(nil)

// New returns a store that uses a client. The caller closes first the store, then the client. The
// client should not retry: package redisurl creates such clients.
func New(client redis.UniversalClient, o Options) *Store {
	o.Prefix = cmp.Or(o.Prefix, "rejoin:")
	o.Timeout = cmp.Or(o.Timeout, 3*time.Second)
	o.MaxSize = cmp.Or(o.MaxSize, 1<<20)
	o.MaxWaiting = cmp.Or(o.MaxWaiting, 16384)
	o.MaxWaitingBytes = cmp.Or(o.MaxWaitingBytes, 64<<20)
	s := &Store{client: client, options: o, lanes: make(map[string]*lane), patchFrom: patchFrom}
	s.open, s.close = context.WithCancelCause(context.Background())
	return s
}

// Create implements [session.Store].
func (s *Store) Create(ctx context.Context, sn session.Session, ttl time.Duration) error {
	sn.Fence = 1
	asked := time.Now()
	key := s.key(sn.PID)
	value, err := s.encode(sn)
	if err == nil {
		err = s.write(ctx, len(value), create.give(ctx, key, asked, ttl, value))
		s.wrote(key, value, err)
	}
	if errors.Is(err, session.ErrFenced) {
		return session.ErrExists
	}
	return located("create", err)
}

// Save implements [session.Store].
func (s *Store) Save(ctx context.Context, sn session.Session, ttl time.Duration) error {
	asked := time.Now()
	key := s.key(sn.PID)
	value, err := s.encode(sn)
	if err == nil {
		var patched bool
		old := s.known.get(key)
		if len(old) >= headSize && !precedes(old, value) {
			old = nil // from a later claim or write: Redis compares the whole value with that
		}
		if patched, err = s.tryPatch(ctx, key, asked, ttl, old, value); !patched {
			session.CountWrite(ctx, len(value)+commandSize)
			err = s.write(ctx, len(value), save.give(ctx, key, asked, ttl, value))
		}
		s.wrote(key, value, err)
	}
	return located("save", err)
}

// precedes reports whether value may replace old: it has the same fence and a later write number.
// Heads of the same length compare as their numbers do.
func precedes(old, value []byte) bool {
	return bytes.Equal(old[:16], value[:16]) && bytes.Compare(old[16:headSize], value[16:headSize]) < 0
}

// Drop implements [session.Store].
func (s *Store) Drop(ctx context.Context, ref session.Ref) error {
	key := s.key(ref.PID)
	err := s.write(ctx, 0, drop.run(ctx, key, s.head(ref.Fence)))
	s.wrote(key, nil, err)
	if errors.Is(err, session.ErrNotFound) {
		return nil
	}
	return located("drop", err)
}

// Claim implements [session.Store].
func (s *Store) Claim(ctx context.Context, pid, by string, ttl time.Duration, check func(session.Session) error) (session.Session, string, error) {
	key := s.key(pid)
	for {
		sn, value, err := s.read(ctx, pid)
		if err != nil {
			return session.Session{}, "", located("claim", err)
		}
		if check != nil {
			shown := sn
			shown.Data, shown.Rooms = slices.Clone(sn.Data), slices.Clone(sn.Rooms)
			if err := check(shown); err != nil {
				return session.Session{}, "", err
			}
		}
		former, asked := sn.Owner, time.Now()
		sn.Owner = by
		sn.Fence++
		claimed, err := s.encode(sn)
		if err == nil {
			var patched bool
			if patched, err = s.tryPatch(ctx, key, asked, ttl, value, claimed); !patched {
				err = s.write(ctx, len(claimed), claim.give(ctx, key, asked, ttl, value[:headSize], claimed))
			}
			s.wrote(key, claimed, err)
		}
		switch {
		case err == nil:
			return sn, former, nil
		case !errors.Is(err, session.ErrFenced):
			return session.Session{}, "", located("claim", err)
		}
		// It has changed meanwhile: retry.
	}
}

// read returns a stored session and its value. more are commands that are sent with it.
func (s *Store) read(ctx context.Context, pid string, more ...item) (sn session.Session, value []byte, err error) {
	key := s.key(pid)
	get := redis.NewStringCmd(ctx, "getrange", key, 0, s.options.MaxSize) // one byte more than the limit
	err = s.do(ctx, 0, append([]item{{key: key, cmd: get}}, more...)...)
	if isOverwritten(err) {
		return sn, nil, fmt.Errorf("%w: %w", session.ErrUndecodable, err)
	}
	if err != nil { // then the command may still be in flight
		return sn, nil, err
	}
	value, _ = get.Bytes()
	switch {
	case len(value) == 0:
		return sn, nil, session.ErrNotFound
	case len(value) > s.options.MaxSize:
		return sn, nil, fmt.Errorf("%w: more than %d bytes", errValue, s.options.MaxSize)
	}
	if sn, err = decode(value); err != nil {
		return sn, nil, err
	}
	sn.PID = pid
	return sn, value, nil
}

// Refresh implements [session.Store].
func (s *Store) Refresh(ctx context.Context, live []session.Ref, ttl time.Duration) (gone []session.Ref, err error) {
	if err := context.Cause(ctx); err != nil {
		return nil, located("refresh", err)
	}
	asked := time.Now()
	items := make([]item, 0, min(len(live), maxBatch))
	for chunk := range slices.Chunk(live, maxBatch) {
		items = items[:0]
		for _, ref := range chunk {
			items = append(items, refresh.give(ctx, s.key(ref.PID), asked, ttl, fmt.Sprintf("%016x", ref.Fence)))
		}
		if err := s.do(ctx, 0, items...); err != nil && !isOverwritten(err) {
			return gone, located("refresh", err)
		}
		for i, ref := range chunk {
			switch err := items[i].result(); err {
			case nil:
			case session.ErrNotFound, session.ErrFenced:
				gone = append(gone, ref)
			default:
				return gone, located("refresh", err)
			}
		}
	}
	return gone, nil
}

// errLate means that the session would already have expired. It is unchanged.
var errLate = errors.New("executed after the requested lifetime")

// write runs a script and returns its result.
func (s *Store) write(ctx context.Context, size int, it item) error {
	if err := s.do(ctx, size, it); err != nil && !isOverwritten(err) {
		return err
	}
	return it.result()
}

// result returns the result of an executed script as an error.
func (it item) result() error {
	switch verdict, _, err := it.answer(); {
	case isOverwritten(err):
		return session.ErrNotFound
	case err != nil:
		return err
	case verdict == absent:
		return session.ErrNotFound
	case verdict == fenced:
		return session.ErrFenced
	case verdict == late:
		return errLate
	default:
		return nil
	}
}

// isOverwritten reports whether a reply states that the value of a session's key is not a string:
// another program has overwritten it, so the session is lost. Before Redis 7 a script's reply has
// the word in its middle.
func isOverwritten(err error) bool {
	reply, ok := errors.AsType[redis.Error](err)
	return ok && strings.Contains(reply.Error(), "WRONGTYPE")
}

// located adds to an error where it occurred, unless callers test for it.
func located(where string, err error) error {
	switch err {
	case nil, session.ErrNotFound, session.ErrFenced, session.ErrExists:
		return err
	}
	return fmt.Errorf("session/redis: %s: %w", where, err)
}

func (s *Store) key(pid string) string {
	sum := sha256.Sum256([]byte(pid))
	return s.options.Prefix + "s:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// number returns the next write number.
func (s *Store) number() int64 {
	for {
		last := s.lastTime.Load()
		next := max(last+1, time.Now().UnixMicro())
		if s.lastTime.CompareAndSwap(last, next) {
			return next
		}
	}
}

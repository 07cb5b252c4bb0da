// Package app is the built-in application: what clients can do on a node without
// any server code. They join rooms, send events to rooms, to everyone or to one
// another, and read a room's history and members. docs/protocol.md lists it, and
// what it takes to be allowed to.
package app

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/auth"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// Timeout bounds what one event may take, however the cluster does.
const Timeout = 10 * time.Second

// Options configure an [App].
type Options struct {
	// Verifier judges the token that every client must show. Without one nobody
	// has to prove who they are, and all are Anonymous.
	Verifier *auth.Verifier

	// Anonymous is what clients may do where there is no Verifier.
	Anonymous auth.Permissions

	// Allow is asked before each event; one that is not allowed is dropped. By
	// default all are.
	Allow Allowance

	// Read is called before each read of the cluster, history or members, and waits
	// until it may run; leave is called after it. An error refuses the read. By default
	// all may run.
	Read func(ctx context.Context, event string) (leave func(), err error)

	// Logger gets what an operator should know. By default nothing is logged.
	Logger *zap.Logger
}

// An Allowance decides whether a user's socket may send one more event of so many
// bytes. The error says why not.
type Allowance func(user, socket string, bytes int) error

// An App serves the namespaces that it is registered with. Its methods may be
// called at once.
type App struct {
	verifier  *auth.Verifier
	anonymous auth.Identity
	allow     Allowance
	read      func(ctx context.Context, event string) (leave func(), err error)
	log       *zap.Logger

	mu            sync.Mutex
	forbidden     map[string]uint64    // by event
	refusedTokens map[auth.Code]uint64 // by why
}

// New returns an application. Whoever made the verifier closes it, after the
// server.
func New(o Options) *App {
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Allow == nil {
		o.Allow = func(string, string, int) error { return nil }
	}
	if o.Read == nil {
		o.Read = func(context.Context, string) (func(), error) { return func() {}, nil }
	}
	a := &App{
		verifier:      o.Verifier,
		anonymous:     auth.Identity{Can: o.Anonymous},
		allow:         o.Allow,
		read:          o.Read,
		log:           o.Logger,
		forbidden:     make(map[string]uint64),
		refusedTokens: make(map[auth.Code]uint64),
	}
	for name := range requests { // every label is there from the start
		a.forbidden[name] = 0
	}
	for _, code := range auth.Codes {
		a.refusedTokens[code] = 0
	}
	return a
}

// Register serves the application to the clients of a namespace.
func (a *App) Register(n *socketio.Namespace) {
	n.Use(a.admit)
	n.OnAny(a.serve)
}

// Stats are an application's counters since its start.
type Stats struct {
	Forbidden     map[string]uint64    // events that their senders may not send, by name
	RefusedTokens map[auth.Code]uint64 // at CONNECT or later
}

// Stats returns a snapshot.
func (a *App) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	return Stats{maps.Clone(a.forbidden), maps.Clone(a.refusedTokens)}
}

// A request is one event of a client, and who the client is.
type request struct {
	*socketio.Event
	app    *App
	client *auth.Identity
}

// serve answers one event.
func (a *App) serve(ctx context.Context, e *socketio.Event) error {
	if err := a.allow(e.Socket().User(), e.Socket().ID(), e.Size()); err != nil {
		return answer(e, failure(ctx, fail(rateLimited, "%v; this one was dropped", err)))
	}
	if e.Name == "echo" {
		return answer(e, e.Rest(0)...) // waits for nothing, so it needs no deadline
	}
	handle, known := requests[e.Name]
	if !known {
		return answer(e, failure(ctx, fail(unknownEvent, "there is no event %q; see the protocol's table", e.Name)))
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	reply, err := handle(ctx, &request{e, a, a.identity(e.Socket())})
	if errors.Is(err, errNobodyWaits) {
		return nil
	}
	if err != nil {
		f := failure(ctx, err)
		if f.Code == forbidden {
			a.mu.Lock()
			a.forbidden[e.Name]++
			a.mu.Unlock()
			a.log.Debug("an event is forbidden", zap.String("event", e.Name), zap.String("socket", e.Socket().ID()))
		}
		return answer(e, f)
	}
	return answer(e, reply)
}

// errNobodyWaits: nobody gets what a read would answer.
var errNobodyWaits = errors.New("app: nobody waits for the answer")

// read reads for an ack, and does nothing if there is nobody who gets it: the client
// asks for none, or its connection has been closed since it asked.
func read(f func(context.Context, *request) (any, error)) func(context.Context, *request) (any, error) {
	return func(ctx context.Context, r *request) (any, error) {
		if !r.CanAck() {
			return nil, errNobodyWaits
		}
		leave, err := r.app.read(ctx, r.Name)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, err
		case err != nil:
			return nil, fail(unavailable, "%v", err)
		}
		defer leave()
		if !r.CanAck() { // any more
			return nil, errNobodyWaits
		}
		return f(ctx, r)
	}
}

// answer acks if an ack is asked for. One that cannot be sent becomes a failure, because
// a client that gets no ack waits for it.
func answer(e *socketio.Event, args ...any) error {
	if !e.HasAck() {
		return nil
	}
	err := e.Ack(args...)
	if err == nil || errors.Is(err, socketio.ErrDisconnected) {
		return nil
	}
	_ = e.Ack(failureReply{Code: badRequest, Message: "the answer cannot be encoded: " + err.Error()})
	return err
}

// Package app is the built-in application, with which clients use a node without server code. They
// join rooms, send events to rooms, to everyone or to one another, and read a room's history and
// members. docs/protocol.md lists the events and the permissions that they require.
package app

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/auth"
	"github.com/rejoin-io/rejoin/internal/limit"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// Timeout bounds the handling of one event, in any state of the cluster.
const Timeout = 10 * time.Second

// Options configure an [App].
type Options struct {
	// Verifier verifies the token that every client must send. Without one there is no
	// authentication, and all clients have the permissions Anonymous.
	Verifier *auth.Verifier

	// Anonymous are the permissions of clients if there is no Verifier, and the Hooks do not decide
	// who connects.
	Anonymous auth.Permissions

	// Hooks are the questions to the backend. By default none is asked.
	Hooks Hooks

	// Limits bound the use of the node by sockets and users. By default only the number of
	// concurrent reads is bounded.
	Limits *limit.Clients

	// Logger receives the application's logs. By default nothing is logged.
	Logger *zap.Logger
}

// An App serves the namespaces that it is registered with. Its methods are safe for concurrent use.
type App struct {
	verifier  *auth.Verifier
	anonymous auth.Identity
	hooks     Hooks
	limits    *limit.Clients
	log       *zap.Logger

	mu            sync.Mutex
	forbidden     map[string]uint64    // by event
	refusedTokens map[auth.Code]uint64 // by code
}

// New returns an application. The caller closes the verifier, after the server.
func New(o Options) *App {
	a := &App{
		verifier:      o.Verifier,
		anonymous:     auth.Identity{Can: o.Anonymous},
		hooks:         o.Hooks,
		limits:        cmp.Or(o.Limits, limit.NewClients(limit.ClientOptions{})),
		log:           cmp.Or(o.Logger, zap.NewNop()),
		forbidden:     make(map[string]uint64),
		refusedTokens: make(map[auth.Code]uint64),
	}
	for name := range requests { // every label exists from the start
		a.forbidden[name] = 0
	}
	for _, code := range auth.Codes {
		a.refusedTokens[code] = 0
	}
	return a
}

// A Registry is a namespace, or the parent of dynamic ones.
type Registry interface {
	Use(func(context.Context, *socketio.ConnectRequest) error)
	OnConnect(func(*socketio.Socket))
	OnAny(socketio.Handler)
}

// Register serves the application to the clients of a namespace, or of all children of a parent.
func (a *App) Register(n Registry) {
	n.Use(a.admit)
	if a.identifies() {
		n.OnConnect(a.watch)
	}
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

// A request is one event of a client, and the client's identity. Inside the event once it is the inner
// one: Name and Args are that one's.
type request struct {
	*socketio.Event
	Name string
	socketio.Args
	once   *socketio.Once // nil outside the event once
	app    *App
	client *auth.Identity
	limits *limit.Client
	read   int // bytes
}

type limitsKey struct{}

// limitsOf returns the limits of a socket, whose events are handled one after the other.
func (a *App) limitsOf(s *socketio.Socket) *limit.Client {
	if l, ok := s.Value(limitsKey{}).(*limit.Client); ok {
		return l
	}
	l := a.limits.Client(s.User(), s.Handshake().RemoteAddr)
	s.SetValue(limitsKey{}, l)
	return l
}

// serve answers one event.
func (a *App) serve(ctx context.Context, e *socketio.Event) error {
	limits := a.limitsOf(e.Socket())
	if err := limits.Allow(e.Size()); err != nil {
		return answer(e, failure(ctx, fail(rateLimited, "%v; this one was dropped", err)))
	}
	if q, ok := a.hooks.about(e); ok {
		return a.hooks.ask(ctx, q, limits)
	}
	if e.Name == "echo" {
		return answer(e, e.Rest(0)...) // does not wait, so it needs no deadline
	}
	r := &request{Event: e, Name: e.Name, Args: e.Args, app: a, client: a.identity(e.Socket()), limits: limits}
	if e.Name == "once" {
		if err := r.unwrap(); err != nil {
			return answer(e, failure(ctx, err))
		}
	}
	handle, known := requests[r.Name]
	if !known {
		return answer(e, failure(ctx, fail(unknownEvent, "unknown event %.100q; docs/protocol.md lists the events", r.Name)))
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	reply, err := handle(ctx, r)
	if errors.Is(err, errNobodyWaits) || errors.Is(err, errAnswered) {
		return nil
	}
	if err != nil {
		f := failure(ctx, err)
		if f.Code == forbidden {
			a.mu.Lock()
			a.forbidden[r.Name]++
			a.mu.Unlock()
			a.log.Debug("event forbidden", zap.String("event", r.Name), zap.String("socket", e.Socket().ID()))
		}
		return answer(e, f)
	}
	return answer(e, reply)
}

// errNobodyWaits means that the client no longer awaits the answer of a read.
var errNobodyWaits = errors.New("app: no ack requested, or the connection has closed")

// read runs a read for an ack. It does nothing if the client requests no ack, or its connection has
// been closed since the request.
func read(f func(context.Context, *request) (any, error)) func(context.Context, *request) (any, error) {
	return func(ctx context.Context, r *request) (any, error) {
		if !r.CanAck() {
			return nil, errNobodyWaits
		}
		done, err := r.limits.Read(ctx, r.Name)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, err
		case errors.Is(err, limit.ErrBusy):
			return nil, fail(unavailable, "%v", err)
		case err != nil:
			return nil, fail(rateLimited, "%v", err)
		}
		defer func() { done(r.read) }()
		if !r.CanAck() { // no longer
			return nil, errNobodyWaits
		}
		return f(ctx, r)
	}
}

// answer acks if an ack is requested. An ack that cannot be sent becomes a failure, because a
// client that gets no ack waits for it.
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

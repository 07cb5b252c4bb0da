package socketio

import (
	"context"
	"sync"
)

// rules are an application's settings for a namespace or for all children of a parent. Slices and
// maps are replaced, never changed, so a copy is a snapshot.
type rules struct {
	use       []func(context.Context, *ConnectRequest) error
	onConnect []func(*Socket)
	onAny     []Handler
	handlers  map[string][]Handler
}

// registrations are the rules that the application has registered so far.
type registrations struct {
	mu    sync.RWMutex
	rules rules
}

// Use adds a middleware, which is called for every client that requests to connect, in the order of
// registration. An error refuses the client, which sees a connect_error and does not retry
// automatically. An error that wraps [ErrTemporary] closes the connection instead, so that stock
// clients reconnect and retry: immediately, or after 5 to 10 seconds if the connection has sockets
// in other namespaces, because these are disconnected as well.
//
// The context is that of the socket, [Socket.Context]. It ends when the client disconnects; for a
// client that is refused, [context.Cause] then returns the error.
//
// The middlewares of a [Parent] run before those of its child.
func (r *registrations) Use(f func(context.Context, *ConnectRequest) error) {
	register("Use", &r.mu, &r.rules.use, f)
}

// OnConnect calls f with every socket that connects, before its first event is
// handled, on the goroutine of its handlers.
func (r *registrations) OnConnect(f func(*Socket)) {
	register("OnConnect", &r.mu, &r.rules.onConnect, f)
}

// On registers a handler of an event of every socket of the namespace, or of a parent's children. A
// socket's own handlers of the event run first. On panics if h is nil or the event's name is
// reserved.
func (r *registrations) On(event string, h Handler) {
	registerHandler("On", &r.mu, &r.rules.handlers, event, h)
}

// OnAny calls h with every event of every socket of the namespace, or of a parent's children, before
// the sockets' middlewares see it.
func (r *registrations) OnAny(h Handler) { register("OnAny", &r.mu, &r.rules.onAny, h) }

// registered returns a snapshot of the rules.
func (r *registrations) registered() rules {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.rules
}

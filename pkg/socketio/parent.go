package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"regexp"
	"sync"
)

// A Parent stands for all dynamic namespaces that one pattern or function accepts: its children.
// Functions registered on it apply to each of them, including existing ones. A child that a client
// created is forgotten when its last socket leaves, unless Options.KeepEmptyNamespaces is set.
type Parent struct {
	srv     *Server
	pattern *regexp.Regexp // nil for a parent of OfFunc
	allow   func(ctx context.Context, name string, auth json.RawMessage) (bool, error)

	mu sync.RWMutex
	rules
}

func (p *Parent) rulesNow() rules {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.rules
}

// Use adds a middleware, as [Namespace.Use] does, to all children.
func (p *Parent) Use(f func(context.Context, *ConnectRequest) error) {
	checkFunc("Parent.Use", f)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.use = append(p.use[:len(p.use):len(p.use)], f)
}

// OnConnect calls f with every socket that connects to a child.
func (p *Parent) OnConnect(f func(*Socket)) {
	checkFunc("Parent.OnConnect", f)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onConnect = append(p.onConnect[:len(p.onConnect):len(p.onConnect)], f)
}

// On registers a handler of an event of every socket of every child, as [Namespace.On] does.
func (p *Parent) On(event string, h Handler) {
	checkHandler("On", event, h)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handlers = withHandler(p.handlers, event, h)
}

// OnAny calls h with every event of every socket of every child.
func (p *Parent) OnAny(h Handler) {
	checkFunc("Parent.OnAny", h)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onAny = append(p.onAny[:len(p.onAny):len(p.onAny)], h)
}

// Children returns the children on this node. Other nodes may have others.
func (p *Parent) Children() iter.Seq[*Namespace] {
	p.srv.mu.Lock()
	var children []*Namespace
	for _, n := range p.srv.namespaces {
		if n.parent == p {
			children = append(children, n)
		}
	}
	p.srv.mu.Unlock()
	return func(yield func(*Namespace) bool) {
		for _, n := range children {
			if !yield(n) {
				return
			}
		}
	}
}

// Emit sends an event to every socket of each child of this node, on any node of the cluster. It
// tries all children and returns the errors.
func (p *Parent) Emit(ctx context.Context, event string, args ...any) error {
	var errs []error
	for n := range p.Children() {
		errs = append(errs, n.Emit(ctx, event, args...))
	}
	return errors.Join(errs...)
}

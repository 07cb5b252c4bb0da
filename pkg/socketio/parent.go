package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"regexp"
	"slices"
)

// A Parent stands for all dynamic namespaces that one pattern or function accepts: its children.
// Functions registered on it apply to each of them, including existing ones. A child that a client
// created is forgotten when its last socket leaves, unless Options.KeepEmptyNamespaces is set.
type Parent struct {
	srv     *Server
	pattern *regexp.Regexp // nil for a parent of OfFunc
	allow   func(ctx context.Context, name string, auth json.RawMessage) (bool, error)

	registrations
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
	return slices.Values(children)
}

// Emit sends an event to every socket of each child of this node, on any node of the cluster. It
// tries all children and returns their errors, joined by [errors.Join].
func (p *Parent) Emit(ctx context.Context, event string, args ...any) error {
	var errs []error
	for n := range p.Children() {
		errs = append(errs, n.Emit(ctx, event, args...))
	}
	return errors.Join(errs...)
}

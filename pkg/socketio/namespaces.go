package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
)

// Of returns the namespace with a name, and creates it if needed. A missing leading slash is added.
// Of panics if the name contains a comma or a question mark, which no client can send. A new
// namespace whose name matches a pattern of OfPattern is a child of the first such pattern, with
// its middlewares and handlers. A child that Of has created is kept when its last socket leaves.
//
// A namespace that was created before the pattern was registered stays independent. The functions
// of OfFunc are not called, because they need a client's auth payload: a namespace that Of creates belongs
// to none of them, and is guarded only by its own middlewares.
func (s *Server) Of(name string) *Namespace {
	if !strings.HasPrefix(name, "/") {
		name = "/" + name
	}
	if i := strings.IndexAny(name, ",?"); i >= 0 {
		panic(fmt.Sprintf("socketio: Of(%q): remove %q: clients cannot name such a namespace", name, name[i]))
	}
	return s.open(name, 0, func() *Parent { return s.matching(name) })
}

// OfPattern accepts every namespace whose name, with its leading slash, the pattern matches. Of
// creates it, or the first client that connects to it. A pattern without ^ and $ also accepts names
// that only contain a match.
func (s *Server) OfPattern(re *regexp.Regexp) *Parent {
	if re == nil {
		panic("socketio: OfPattern: nil pattern")
	}
	allow := func(_ context.Context, name string, _ json.RawMessage) (bool, error) {
		return re.MatchString(name), nil
	}
	p := &Parent{srv: s, pattern: re, allow: allow}
	register("OfPattern", &s.mu, &s.parents, p)
	return p
}

// OfFunc accepts every namespace that a function allows, given its name and the auth payload of the
// client that requests it first. Parents are asked in the order of their registration; if one does
// not allow the name, fails or panics, the next one is asked.
//
// While the namespace exists, the function is not called for further clients. Use middlewares
// to decide which clients may enter; see [Namespace.Use].
//
// The function is called concurrently, while clients connect, and may block. The context ends when
// the client disconnects.
func (s *Server) OfFunc(allow func(ctx context.Context, name string, auth json.RawMessage) (bool, error)) *Parent {
	checkFunc("OfFunc", allow)
	p := &Parent{srv: s, allow: allow}
	register("OfFunc", &s.mu, &s.parents, p)
	return p
}

// OnNamespace calls f with every namespace that is created from now on, including dynamic ones. No
// client enters the namespace before f has returned. If f panics, the namespace refuses its
// clients, because f may not have guarded it yet; a dynamic one that a client created is created
// again for the next client.
func (s *Server) OnNamespace(f func(*Namespace)) {
	register("OnNamespace", &s.mu, &s.onNew, f)
}

func (s *Server) lookup(name string) *Namespace {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.namespaces[name]
}

// open returns the namespace with a name and counts the clients that enter it. A new namespace is a
// child of the parent that parent returns; parent is called with s.mu held.
func (s *Server) open(name string, clients int, parent func() *Parent) *Namespace {
	s.mu.Lock()
	n, isNew := s.namespaces[name], false
	if n == nil {
		n, isNew = newNamespace(s, name, parent()), true
		n.pinned = clients == 0
		if len(s.onNew) > 0 {
			n.announced = make(chan struct{})
		}
		put(&s.namespaces, name, n)
	}
	n.clients += clients
	onNew := s.onNew
	s.mu.Unlock()
	if isNew && n.announced != nil {
		s.announce(n, onNew, clients)
	}
	return n
}

// announce calls the OnNamespace functions with a new namespace that some clients enter.
func (s *Server) announce(n *Namespace, onNew []func(*Namespace), clients int) {
	returned, guarded := false, true
	defer func() {
		n.guarded = returned && guarded
		close(n.announced)
		if !returned && clients > 0 { // the caller's goroutine ends
			s.exit(n)
		}
	}()
	for _, report := range onNew {
		guarded = s.guard("OnNamespace", func() { report(n) }) == nil && guarded
	}
	returned = true
}

// enter returns the namespace that a client requested and counts the client in it, or returns nil.
// The count includes clients that are still connecting, so that the namespace is not removed under
// them.
func (s *Server) enter(ctx context.Context, name string, auth json.RawMessage) *Namespace {
	s.mu.Lock()
	n, parents := s.namespaces[name], s.parents
	if n != nil {
		n.clients++
	}
	s.mu.Unlock()
	if n == nil {
		if len(name) > maxNamespaceName {
			return nil
		}
		p := s.parentFor(ctx, parents, name, auth)
		if p == nil {
			return nil
		}
		n = s.open(name, 1, func() *Parent { return p })
	}
	if !n.usable(ctx) {
		s.exit(n)
		return nil
	}
	return n
}

// parentFor returns the first parent that accepts a name, or nil.
func (s *Server) parentFor(ctx context.Context, parents []*Parent, name string, auth json.RawMessage) *Parent {
	for _, p := range parents {
		allowed := false
		s.guard("OfFunc", func() {
			ok, err := p.allow(ctx, name, auth)
			allowed = ok && err == nil
		})
		if allowed {
			return p
		}
	}
	return nil
}

// usable waits for OnNamespace, and reports whether clients may enter.
func (n *Namespace) usable(ctx context.Context) bool {
	if n.announced == nil {
		return true
	}
	return waitFor(ctx, n.announced) == nil && n.guarded
}

// exit undoes an enter.
func (s *Server) exit(n *Namespace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n.clients--
	if n.clients == 0 && n.parent != nil && !n.pinned && !s.opts.KeepEmptyNamespaces && s.namespaces[n.name] == n {
		delete(s.namespaces, n.name)
		if n.dynamic {
			s.dynamic--
		}
	}
}

var errNamespaces = errors.New("socketio: too many dynamic namespaces")

// accept counts a namespace whose middlewares have accepted a client. Before that, clients that are
// not allowed to enter any could use up the limit.
func (s *Server) accept(n *Namespace) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case n.parent == nil || n.pinned || n.dynamic:
	case s.opts.DynamicNamespaces > 0 && s.dynamic >= s.opts.DynamicNamespaces:
		return errNamespaces
	default:
		n.dynamic = true
		s.dynamic++
	}
	return nil
}

// Hold returns the namespace with a name, and keeps it until release is called: one that exists, or
// a child of the first pattern of OfPattern that matches the name. Otherwise ok is false, and also if
// OfFunc was called before that OfPattern: its function might accept the name for a client, and its
// middlewares would not guard the child of the pattern. Unlike Of it leaves nothing behind, so names
// may come from requests. Calling release again has no effect.
func (s *Server) Hold(name string) (n *Namespace, release func(), ok bool) {
	if !strings.HasPrefix(name, "/") || len(name) > maxNamespaceName || strings.ContainsAny(name, ",?") {
		return nil, nil, false
	}
	s.mu.Lock()
	n, p := s.namespaces[name], s.holding(name)
	if n != nil {
		n.clients++
	}
	s.mu.Unlock()
	if n == nil && p == nil {
		return nil, nil, false
	}
	if n == nil {
		n = s.open(name, 1, func() *Parent { return p })
	}
	return n, sync.OnceFunc(func() { s.exit(n) }), true
}

// holding returns the parent of a namespace that Hold creates, or nil. s.mu is held.
func (s *Server) holding(name string) *Parent {
	for _, p := range s.parents {
		switch {
		case p.pattern == nil:
			return nil
		case p.pattern.MatchString(name):
			return p
		}
	}
	return nil
}

// matching returns the first parent whose pattern matches a name, or nil. s.mu is held.
func (s *Server) matching(name string) *Parent {
	for _, p := range s.parents {
		if p.pattern != nil && p.pattern.MatchString(name) {
			return p
		}
	}
	return nil
}

package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// guarded refuses all clients.
func guarded(p *Parent) {
	p.Use(func(context.Context, *ConnectRequest) error { return errors.New("guarded") })
}

// answer connects to a namespace and returns the answer.
func (w *wire) answer(namespace string) string {
	w.t.Helper()
	w.write("40" + namespace + ",")
	return w.next()
}

// A namespace of Of is a child of a pattern that matches its name, so it cannot bypass the
// pattern's middlewares.
func TestOfMakesAChildOfThePattern(t *testing.T) {
	n := start(t, Options{})
	before := n.Of("/tenant-0")
	first := n.OfPattern(regexp.MustCompile(`^/tenant-\d+$`))
	guarded(first)
	second := n.OfPattern(regexp.MustCompile(`^/tenant-\d*$`))
	n.OfFunc(func(context.Context, string, json.RawMessage) (bool, error) { return false, nil })

	child := n.Of("tenant-1")
	if got := slices.Collect(first.Children()); len(got) != 1 || got[0] != child || n.Of("/tenant-1") != child {
		t.Errorf("children %v, want the one that Of made", got)
	}
	if got := n.dial(t).answer("/tenant-1"); !strings.HasPrefix(got, "44/tenant-1,") {
		t.Errorf(`a client passes the guard: %s, want text that begins with "44/tenant-1,"`, got)
	}
	if len(slices.Collect(second.Children())) != 0 {
		t.Error("the second pattern that matches has a child")
	}
	// A namespace that was created before the pattern was registered stays independent.
	if got := n.dial(t).answer("/tenant-0"); n.Of("/tenant-0") != before || !strings.HasPrefix(got, "40/tenant-0,") {
		t.Errorf("a namespace from before the pattern: %s", got)
	}
	// A child that Of has created keeps the functions registered on it.
	open := n.OfPattern(regexp.MustCompile(`^/open$`))
	n.Of("/open").On("q", func(_ context.Context, e *Event) error { return e.Ack("a") })
	for range 2 {
		w := n.dial(t).connect("/open", "")
		if got := w.call(`["q"]`); got != `["a"]` {
			t.Errorf("acked %s, want %s", got, `["a"]`)
		}
		w.write("41/open,")
		eventually(t, "it is empty", func() bool { return n.Of("/open").Len() == 0 })
		w.cut()
	}
	if len(slices.Collect(open.Children())) != 1 {
		t.Error("the child that Of made is forgotten")
	}
}

// Of and clients that make the same child concurrently get one namespace, which
// no client enters before OnNamespace has returned.
func TestConcurrentCreationOfAChild(t *testing.T) {
	n := start(t, Options{})
	n.OfPattern(regexp.MustCompile(`^/c\d$`))
	release := make(chan struct{})
	var made sync.Map
	n.OnNamespace(func(ns *Namespace) {
		if _, twice := made.LoadOrStore(ns.Name(), true); twice {
			t.Errorf("%s is made twice", ns.Name())
		}
		<-release
		ns.Use(func(context.Context, *ConnectRequest) error { return errors.New("guarded") })
	})
	for _, byClient := range []bool{true, false} {
		name := map[bool]string{true: "/c1", false: "/c2"}[byClient]
		var creator sync.WaitGroup
		first := n.dial(t)
		if byClient {
			first.write("40" + name + ",")
		} else {
			creator.Go(func() { n.Of(name) })
		}
		eventually(t, "it exists", func() bool { return n.lookup(name) != nil })
		late := n.dial(t)
		late.write("40" + name + ",")
		late.write("40") // admitted after it
		entering := map[bool]int{true: 2, false: 1}[byClient]
		eventually(t, "the clients are entering it, so that it is not dropped between them", func() bool {
			ns := n.lookup(name)
			n.mu.Lock()
			defer n.mu.Unlock()
			return ns.clients == entering
		})
		if got := late.next(); !strings.HasPrefix(got, "40{") {
			t.Errorf(`a client enters %s before OnNamespace has returned: %s, want text that begins with "40{"`, name, got)
		}
		release <- struct{}{}
		if got := late.next(); !strings.HasPrefix(got, "44"+name) {
			t.Errorf("%s lets a client in: %s", name, got)
		}
		creator.Wait()
	}
}

// TestParentsComeFirst: the middlewares and handlers of a child are its parent's and then its own.
func TestParentsComeFirst(t *testing.T) {
	n := start(t, Options{})
	parent := n.OfPattern(regexp.MustCompile(`^/child`))
	child := n.Of("/child")
	called := make(chan string, 10)
	note := func(name string) Handler {
		return func(context.Context, *Event) error { called <- name; return nil }
	}
	child.Use(func(context.Context, *ConnectRequest) error { called <- "own middleware"; return nil })
	parent.Use(func(context.Context, *ConnectRequest) error { called <- "parent's middleware"; return nil })
	child.On("a", note("own handler"))
	parent.On("a", note("parent's handler"))
	child.OnAny(note("own catch-all"))
	parent.OnAny(note("parent's catch-all"))
	n.dial(t).connect("/child", "").write(`42/child,["a"]`)
	for _, want := range []string{
		"parent's middleware", "own middleware", "parent's catch-all", "own catch-all", "parent's handler", "own handler",
	} {
		if got := <-called; got != want {
			t.Fatalf("got the %s, want the %s", got, want)
		}
	}
}

package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"
)

// TestDynamicNamespaces: the limit counts children that clients have entered, until the last one
// leaves. Beyond it a connection is closed, so that its client retries.
func TestDynamicNamespaces(t *testing.T) {
	n := start(t, Options{DynamicNamespaces: 2})
	parent := n.OfPattern(regexp.MustCompile(`^/c\d+$`))
	parent.Use(func(_ context.Context, r *ConnectRequest) error {
		if strings.Contains(string(r.auth), "refused") {
			return errors.New("refused")
		}
		return nil
	})
	n.Of("/c0") // is the application's
	n.Of("/static")
	released := make([]func(), 3)
	for i, name := range []string{"/c20", "/c21", "/c22"} { // nor do these count
		var ok bool
		if _, released[i], ok = n.Hold(name); !ok {
			t.Fatalf("%s is not held", name)
		}
	}
	full := func(name string) {
		t.Helper()
		before := n.Stats()
		w := n.dial(t)
		w.write("40" + name + ",")
		w.closes()
		after := n.Stats()
		if got := after.Limited[limitDynamicNamespaces] - before.Limited[limitDynamicNamespaces]; got != 1 || after.ConnectsPostponed-before.ConnectsPostponed != 1 {
			t.Errorf("%s: counted %d times", name, got)
		}
		eventually(t, "the namespace is dropped", func() bool { return n.lookup(name) == nil })
	}
	enter := func(name string) *wire {
		t.Helper()
		return n.dial(t).connect(name, "")
	}
	for range 5 { // a client that the middlewares refuse takes no place
		w := n.dial(t)
		w.write(`40/c9,{"token":"refused"}`)
		if got := w.next(); !strings.HasPrefix(got, "44/c9,") {
			t.Fatalf("got %s, want a refusal", got)
		}
		defer w.cut()
	}
	first, second := enter("/c1"), enter("/c2")
	full("/c3")
	enter("/c0")
	enter("/static")
	again := enter("/c1") // exists
	first.write("41/c1,")
	full("/c3") // again is in /c1
	second.write("41/c2,")
	eventually(t, "it is empty", func() bool { return n.lookup("/c2") == nil })
	enter("/c3")
	full("/c2")
	again.cut()
	eventually(t, "it is empty", func() bool { return n.lookup("/c1") == nil })
	enter("/c20") // is held
	full("/c1")
	for _, release := range released {
		release()
		release()
	}
	if n.lookup("/c20") == nil || n.lookup("/c21") != nil || n.lookup("/c22") != nil {
		t.Error("a release drops a namespace with clients, or keeps one without")
	}
}

// TestHold: a held namespace is one that exists, or a child of a pattern, and leaves nothing behind.
func TestHold(t *testing.T) {
	n := start(t, Options{})
	static := n.Of("/static")
	parent := n.OfPattern(regexp.MustCompile(`^/c\d*$`))
	before := n.Stats().Namespaces
	for _, bad := range []string{"", "c1", "/d1", "/c1,", "/c1?x", "/c" + strings.Repeat("1", maxNamespaceName)} {
		if _, _, ok := n.Hold(bad); ok {
			t.Errorf("%.20q is held", bad)
		}
	}
	if got, release, ok := n.Hold("/static"); !ok || got != static {
		t.Error("an existing namespace is not found")
	} else {
		release()
	}
	child, release, ok := n.Hold("/c1")
	if !ok || child.parent != parent {
		t.Fatal("not a child of the pattern")
	}
	w := n.dial(t).connect("/c1", "")
	if err := child.Emit(t.Context(), "hi"); err != nil {
		t.Fatal(err)
	}
	w.want(`["hi"]`)
	w.cut()
	eventually(t, "it is empty", func() bool { return child.Len() == 0 })
	if same, undo, _ := n.Hold("/c1"); same != child {
		t.Error("a held namespace was dropped")
	} else {
		undo()
	}
	if n.lookup("/c1") != child {
		t.Error("the second release drops what the first one keeps")
	}
	release()
	if got := n.Stats().Namespaces; got != before || n.lookup("/static") != static {
		t.Errorf("%d namespaces are left, want %d", got, before)
	}
}

// TestHoldKeepsGuards: a name that a function of OfFunc may accept is not held as a child of a later
// pattern, which would let clients in without the middlewares of its parent.
func TestHoldKeepsGuards(t *testing.T) {
	n := start(t, Options{})
	n.OfPattern(regexp.MustCompile(`^/free-\d+$`))
	n.OfFunc(func(_ context.Context, name string, _ json.RawMessage) (bool, error) {
		return strings.HasPrefix(name, "/admin-"), nil
	}).Use(func(context.Context, *ConnectRequest) error { return errors.New("not an admin") })
	n.OfPattern(regexp.MustCompile(`^/[a-z]+-\d+$`))
	for name, want := range map[string]bool{"/free-1": true, "/admin-1": false, "/other-1": false} {
		_, release, ok := n.Hold(name)
		if ok != want {
			t.Errorf("%s: held %t, want %t", name, ok, want)
		}
		w := n.dial(t)
		w.write("40" + name + ",")
		if got := w.next(); strings.HasPrefix(got, "44") != (name == "/admin-1") {
			t.Errorf("%s: %s", name, got)
		}
		w.cut()
		if ok {
			release()
		}
	}
}

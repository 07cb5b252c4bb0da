package main

import "testing"

func TestNamespacePatterns(t *testing.T) {
	ns := (&config{Namespaces: list{"/", "/chat", "/team-*", "/a.b*/x*", "/[x]-*"}}).namespaces()
	for name, want := range map[string]bool{
		"/": true, "/chat": true, "/chatx": false, "/Chat": false, "chat": false, "": false,
		"/team-": true, "/team-7": true, "/team-7/x": false, "/team": false, "x/team-7": false, "/Team-7": false, "/team-7\n": true,
		"/a.b/x": true, "/a.bc/xy": true, "/aXb/x": false, "/a.b/c/x": false, "/[x]-1": true, "/x-1": false, "/team-*": true,
	} {
		if got := ns.serves(name); got != want {
			t.Errorf("%q is served: %v, want %v", name, got, want)
		}
	}
	if ns := (&config{Namespaces: list{"/x"}}).namespaces(); ns.serves("/") {
		t.Error("the main namespace is served")
	}
}

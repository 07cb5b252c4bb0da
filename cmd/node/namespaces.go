package main

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/rejoin-io/rejoin/internal/app"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// namespaces are the names and the patterns of REJOIN_NAMESPACES. In a pattern, * is any text without
// a slash, as in patterns of rooms, and every other character stands for itself.
type namespaces struct {
	names    []string
	patterns []string
}

func (c *config) namespaces() (ns namespaces) {
	for _, name := range c.Namespaces {
		if strings.Contains(name, "*") {
			ns.patterns = append(ns.patterns, name)
		} else {
			ns.names = append(ns.names, name)
		}
	}
	return ns
}

// expression returns the regular expression of a pattern.
func expression(pattern string) *regexp.Regexp {
	return regexp.MustCompile(`\A` + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `[^/]*`) + `\z`)
}

// serves reports whether clients can connect to a namespace.
func (ns namespaces) serves(name string) bool {
	return slices.Contains(ns.names, name) ||
		slices.ContainsFunc(ns.patterns, func(pattern string) bool { return expression(pattern).MatchString(name) })
}

// register serves the application in the namespaces.
func (ns namespaces) register(a *app.App, s *socketio.Server) {
	// The library always has the main namespace. If it is not configured, its clients get the same
	// refusal as for any other unknown namespace.
	switch {
	case !ns.serves("/"):
		s.Use(func(context.Context, *socketio.ConnectRequest) error {
			return &socketio.ConnectError{Message: "Invalid namespace"}
		})
	case !slices.Contains(ns.names, "/"):
		a.Register(s.Of("/"))
	}
	// Before the patterns, whose children would be served twice.
	for _, name := range ns.names {
		a.Register(s.Of(name))
	}
	for _, pattern := range ns.patterns {
		a.Register(s.OfPattern(expression(pattern)))
	}
}

// hold returns a served namespace, and keeps it until release is called.
func (ns namespaces) hold(s *socketio.Server, name string) (n *socketio.Namespace, release func(), ok bool) {
	if !ns.serves(name) {
		return nil, nil, false
	}
	return s.Hold(name)
}

package main

import (
	"net/http"
	"net/http/pprof"

	"github.com/rejoin-io/rejoin/internal/api"
	"github.com/rejoin-io/rejoin/internal/forward"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// serving returns the API for backends with the namespaces that the node serves.
func (n *node) serving(c config) *api.API {
	served := c.namespaces()
	o := api.Options{Calls: n.cluster.calls, Namespaces: make(map[string]*socketio.Namespace, len(served.names)), Patterns: served.patterns}
	for _, name := range served.names {
		o.Namespaces[name] = n.sockets.Of(name)
	}
	o.Hold = func(name string) (*socketio.Namespace, func(), bool) { return served.hold(n.sockets, name) }
	return n.backends.Serving(o)
}

// internalHandler routes requests of operators, backends and other nodes.
func (n *node) internalHandler(a *api.API, scraped http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", n.health.Live)
	mux.HandleFunc("GET /readyz", n.health.Ready)
	mux.Handle("GET /metrics", scraped)
	mux.Handle(api.Prefix, a)
	for path, serve := range map[string]http.HandlerFunc{
		"": pprof.Index, "cmdline": pprof.Cmdline, "profile": pprof.Profile, "symbol": pprof.Symbol, "trace": pprof.Trace,
	} {
		mux.Handle("/debug/pprof/"+path, a.Protect(serve))
	}
	if n.forward != nil {
		mux.Handle(forward.Prefix+"/", n.forward.Handler(n.sockets))
		mux.Handle("POST "+forward.LeavePath, n.forward.Leaving(n.sockets.SendAway))
	}
	return mux
}

package main

import (
	"net/http"
	"net/http/pprof"

	"github.com/rejoin-io/rejoin/internal/api"
	"github.com/rejoin-io/rejoin/internal/forward"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// namespaces returns the namespaces that the API for backends serves.
func (n *node) namespaces(c config) map[string]*socketio.Namespace {
	all := make(map[string]*socketio.Namespace, len(c.Namespaces))
	for _, name := range c.Namespaces {
		all[name] = n.sockets.Of(name)
	}
	return all
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

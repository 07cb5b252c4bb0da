package main

import (
	"net/http"
	"net/http/pprof"

	"github.com/rejoin-io/rejoin/internal/api"
	"github.com/rejoin-io/rejoin/internal/forward"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// newAPI returns the handler of the API for backends. Until there are sockets
// it answers that the node is unavailable.
func (n *node) newAPI(c config) *api.API {
	o := api.Options{Keys: c.APIKeys.list, Callers: c.APICallers.all, Logger: n.log}
	if n.sockets != nil {
		o.Calls = n.cluster.calls
		served := c.namespaces()
		o.Namespaces = make(map[string]*socketio.Namespace, len(served.names))
		for _, name := range served.names {
			o.Namespaces[name] = n.sockets.Of(name)
		}
		o.Patterns = served.patterns
		o.Hold = func(name string) (*socketio.Namespace, func(), bool) { return served.hold(n.sockets, name) }
	}
	return api.New(o)
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

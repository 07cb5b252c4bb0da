// Package api is the HTTP interface of a node for backends: they emit events, request acks, move
// sockets between rooms, disconnect them, and list sockets, rooms and history. docs/api.md is its
// manual and openapi.yaml its contract.
//
// Every answer is JSON; every failure is a problem document, which states whether the requested
// operation may have completed. A call ends in bounded time, in any state of the cluster, and
// continues if its client disconnects.
package api

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rejoin-io/rejoin/internal/api/idempotency"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// Prefix is the prefix of all paths.
const Prefix = "/api/v1/"

// Options configure an [API].
type Options struct {
	// Keys authenticate callers without a name, who may do everything. Callers have names and
	// scopes. Without a key of either the API is closed.
	Keys    []string
	Callers []Caller
	// Namespaces are the available namespaces, by name. While there are none the answer to every
	// call is that the node is not ready.
	Namespaces map[string]*socketio.Namespace
	// Patterns are the names with * of namespaces that are not in the map, for messages. Hold is
	// optional; it returns one of these, and keeps it until the API calls release.
	Patterns []string
	Hold     func(name string) (n *socketio.Namespace, release func(), ok bool)
	// Calls remembers asks with an Idempotency-Key. It is required with Namespaces.
	Calls idempotency.Store
	// Logger is optional.
	Logger *zap.Logger
}

// An API is the handler of all paths below [Prefix].
type API struct {
	o       Options
	keys    *atomic.Pointer[keys]
	log     *zap.Logger
	metrics metrics

	decoding chan struct{} // has a value for each large body that is being decoded
}

// New returns an API.
func New(o Options) *API {
	// Attempts with wrong keys must not fill the log.
	log := cmp.Or(o.Logger, zap.NewNop()).WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(c, time.Second, 10, 0)
	}))
	a := &API{o: o, keys: new(atomic.Pointer[keys]), log: log, metrics: newMetrics(), decoding: make(chan struct{}, 2)}
	a.SetKeys(o.Keys, o.Callers)
	return a
}

// Serving returns an API with the namespaces and the calls of o. It shares everything else with a.
func (a *API) Serving(o Options) *API {
	b := *a
	b.o.Namespaces, b.o.Patterns, b.o.Hold, b.o.Calls = o.Namespaces, o.Patterns, o.Hold, o.Calls
	return &b
}

// Metrics returns the API's metrics.
func (a *API) Metrics() []prometheus.Collector {
	return []prometheus.Collector{a.metrics.requests, a.metrics.seconds}
}

// Routes returns the method and path of every route.
func Routes() []string {
	all := make([]string, 0, len(routes))
	for path, rt := range routes {
		all = append(all, rt.method+" "+Prefix+path)
	}
	slices.Sort(all)
	return all
}

//go:embed openapi.yaml
var openAPI []byte

const openAPIName = "openapi.yaml"

// Timeouts of calls, without reading and answering them. The wait for a silent node is shorter, so
// that the other nodes' answers are still returned.
const (
	timeout      = 10 * time.Second
	fetchTimeout = timeout / 2
	maxAsk       = time.Minute
	askTimeout   = maxAsk + timeout
)

// A route is an operation at a path. A writing route has a body and accepts an Idempotency-Key, which
// makes what it publishes be published once. A route that waits for answers has a body as well, and
// claims its key. A reading route has a query. The only other route is the contract, which needs no key.
type route struct {
	method  string
	timeout time.Duration
	write   func(a *API, ctx context.Context, body []byte, k *callKey) (any, error)
	wait    func(a *API, ctx context.Context, body []byte) (any, error)
	read    func(a *API, ctx context.Context, q query) (any, error)
}

var routes = map[string]route{
	"emit":       {method: http.MethodPost, timeout: timeout, write: (*API).emit},
	"batch":      {method: http.MethodPost, timeout: batchTimeout, write: (*API).batch},
	"ask":        {method: http.MethodPost, timeout: askTimeout, wait: (*API).ask},
	"join":       {method: http.MethodPost, timeout: timeout, write: (*API).join},
	"leave":      {method: http.MethodPost, timeout: timeout, write: (*API).leave},
	"disconnect": {method: http.MethodPost, timeout: timeout, write: (*API).disconnect},
	"sockets":    {method: http.MethodGet, timeout: timeout, read: (*API).sockets},
	"rooms":      {method: http.MethodGet, timeout: timeout, read: (*API).rooms},
	"members":    {method: http.MethodGet, timeout: timeout, read: (*API).members},
	"history":    {method: http.MethodGet, timeout: timeout, read: (*API).history},
	openAPIName:  {method: http.MethodGet},
}

// ServeHTTP implements [http.Handler].
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	name := strings.TrimPrefix(r.URL.Path, Prefix)
	rt, known := routes[name]
	if !known {
		name = "other"
	}
	req := new(request)
	req.caller, req.refused = a.keys.Load().caller(r)
	defer req.end()
	res := a.serve(w, r.WithContext(context.WithValue(r.Context(), requestKey{}, req)), name, rt, known)
	req.end() // before the caller can act on the answer
	a.finish(w, r, name, began, req.caller, res)
}

// Protect serves next, the profiles, to callers with a key whose scope includes them.
func (a *API) Protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, f := a.keys.Load().caller(r)
		if f == nil {
			f = c.mayCall(pprof)
		}
		if f != nil {
			a.finish(w, r, "protected", time.Now(), c, failed(f))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// finish answers, and records the call.
func (a *API) finish(w http.ResponseWriter, r *http.Request, name string, began time.Time, c *Caller, res response) {
	a.metrics.observe(name, res.status, c.label(), time.Since(began))
	if res.failure != nil {
		a.note(name, res.failure, zap.String("caller", c.label()), zap.String("remote", r.RemoteAddr))
	} else {
		a.log.Debug("API call", zap.String("route", name), zap.Int("status", res.status), zap.String("caller", c.label()))
	}
	res.write(w)
}

// note logs a failure.
func (a *API) note(name string, f *failure, more ...zap.Field) {
	say := a.log.Info
	if f.code.status >= http.StatusInternalServerError {
		say = a.log.Warn
	}
	say("an API call failed", append(more, zap.String("route", name), zap.Int("status", f.code.status),
		zap.String("code", f.code.name), zap.String("detail", f.detail), zap.NamedError("cause", f.cause))...)
}

func (a *API) serve(w http.ResponseWriter, r *http.Request, name string, rt route, known bool) response {
	allowed := known && r.Method == rt.method
	if allowed && rt.timeout == 0 {
		return response{status: http.StatusOK, contentType: "application/yaml", body: openAPI}
	}
	req := requestOf(r.Context())
	if req.refused != nil {
		return failed(req.refused)
	}
	if known {
		if f := req.caller.mayCall(name); f != nil {
			return failed(f)
		}
	}
	switch {
	case !known:
		return failed(fail(notFound, "unknown path; %s%s lists the endpoints", Prefix, openAPIName))
	case !allowed:
		res := failed(fail(methodNotAllowed, "%s requires %s", r.URL.Path, rt.method))
		res.allow = rt.method
		return res
	case a.o.Namespaces == nil:
		return failed(fail(unavailable, "the node has not joined its cluster yet; the call was not executed"))
	case rt.read != nil:
		ctx, cancel := context.WithTimeout(r.Context(), rt.timeout)
		defer cancel()
		v, err := rt.read(a, ctx, query(r.URL.Query()))
		return answered(v, err, "")
	}
	body, f := readBody(w, r)
	if f != nil {
		return failed(f)
	}
	k, f := newCallKey(req.caller, r, body)
	if f != nil {
		return failed(f)
	}
	// Not the client's context: a call that has begun completes, so that it has one outcome.
	ctx := context.WithoutCancel(r.Context())
	run := func() response {
		ctx, cancel := context.WithTimeout(ctx, rt.timeout)
		defer cancel()
		if rt.wait != nil {
			v, err := rt.wait(a, ctx, body)
			return answered(v, err, mayHave)
		}
		v, err := rt.write(a, ctx, body, k)
		res := answered(v, err, mayHave)
		res.replayed = err == nil && k.repeated()
		return res
	}
	if k != nil && rt.wait != nil {
		return a.claimed(ctx, k, rt.timeout, run)
	}
	return run()
}

// A response is the answer to a call.
type response struct {
	status      int
	contentType string
	body        []byte
	failure     *failure // nil on success
	allow       string
	replayed    bool
}

// answered returns the response of a call. may is the text to add if the outcome of the call
// is unknown.
func answered(v any, err error, may string) response {
	switch {
	case err != nil:
		return failed(asFailure(err, may))
	case v == nil:
		return response{status: http.StatusNoContent}
	}
	return response{status: http.StatusOK, contentType: contentJSON, body: encode(v)}
}

func failed(f *failure) response {
	p := f.problem()
	return response{status: p.Status, contentType: contentProblem, body: encode(p), failure: f}
}

const (
	contentJSON    = "application/json"
	contentProblem = "application/problem+json"
)

// writeTimeout is the time that a client may take to read an answer.
const writeTimeout = 10 * time.Second

func (res response) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	if res.contentType != "" {
		h.Set("Content-Type", res.contentType)
		h.Set("Content-Length", strconv.Itoa(len(res.body)))
	}
	if res.allow != "" {
		h.Set("Allow", res.allow)
	}
	if res.replayed {
		h.Set("Idempotency-Replayed", "true")
	}
	if f := res.failure; f != nil {
		switch {
		case f.code == unauthorized:
			h.Set("WWW-Authenticate", `Bearer realm="rejoin"`)
		case f.code == underWay, f.code == unavailable && !f.open:
			h.Set("Retry-After", "1")
		}
	}
	// The connection may be reused afterwards, so the deadline ends with this answer. The only
	// possible error here is a disconnected client.
	out := http.NewResponseController(w)
	_ = out.SetWriteDeadline(time.Now().Add(writeTimeout))
	w.WriteHeader(res.status)
	_, err := w.Write(res.body)
	if errors.Join(err, out.Flush()) == nil {
		_ = out.SetWriteDeadline(time.Time{})
	}
}

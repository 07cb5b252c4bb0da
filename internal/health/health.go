// Package health reports whether a node is alive and whether it is ready for clients, and why not.
package health

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A State is the liveness and readiness of a node. It is not ready at first. Its methods are safe
// for concurrent use.
type State struct {
	node, version string
	started       time.Time
	phase         atomic.Pointer[phase]

	mu    sync.Mutex
	needs []need // replaced, never changed
}

// A need is an external dependency that the node can't serve without.
type need struct {
	name string
	lack func() error
}

// A phase is one part of a node's lifecycle.
type phase struct {
	name   string
	ready  bool
	reason string
	// connections counts the connections that are still to be closed; nil unless draining.
	connections func() int
}

var (
	starting = &phase{name: "starting", reason: "the node does not accept connections yet"}
	serving  = &phase{name: "ready", ready: true, reason: "the node accepts connections"}
	stopping = &phase{name: "stopping", reason: "stopping: closing connections"}
)

// New returns the state of a node that is starting.
func New(node, version string) *State {
	s := &State{node: node, version: version, started: time.Now()}
	s.phase.Store(starting)
	return s
}

// Serving makes the node ready, unless it is stopping already.
func (s *State) Serving() { s.phase.CompareAndSwap(starting, serving) }

// Needs makes the node ready only while lack returns nil. The error of lack states the reason. It
// replaces an earlier lack for the same need.
func (s *State) Needs(name string, lack func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	others := slices.DeleteFunc(slices.Clone(s.needs), func(n need) bool { return n.name == name })
	s.needs = append(others, need{name, lack})
}

// Draining makes the node permanently not ready: it is about to stop, and its connections are being
// closed. connections returns the number of remaining connections.
func (s *State) Draining(connections func() int) {
	s.phase.Store(&phase{
		name: "draining", reason: "draining: clients reconnect to other nodes", connections: connections,
	})
}

// Stopping makes the node permanently not ready.
func (s *State) Stopping() { s.phase.Store(stopping) }

// A check is one dependency of an answer.
type check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason"`
}

type answer struct {
	Status        string  `json:"status"`
	Checks        []check `json:"checks"`
	Node          string  `json:"node"`
	Version       string  `json:"version"`
	UptimeSeconds int64   `json:"uptime_seconds"`
	Connections   *int    `json:"connections,omitempty"` // left while the node drains
}

// Live answers 200 as long as the process can answer at all. It depends on nothing else, because a
// restart does not repair a dependency.
func (s *State) Live(w http.ResponseWriter, _ *http.Request) {
	s.reply(w, "alive", []check{{"process", true, "the process answers"}}, nil)
}

// Ready answers 200 if new clients should be sent to this node, otherwise 503.
func (s *State) Ready(w http.ResponseWriter, _ *http.Request) {
	p := s.phase.Load()
	var left *int
	if p.connections != nil {
		left = new(p.connections())
	}
	status, checks := s.checks(p)
	s.reply(w, status, checks, left)
}

// IsReady reports whether Ready answers 200.
func (s *State) IsReady() bool {
	_, checks := s.checks(s.phase.Load())
	return !failing(checks)
}

// IsDraining reports whether the node is draining or stopping.
func (s *State) IsDraining() bool {
	p := s.phase.Load()
	return p != starting && p != serving
}

// Public answers like Ready, but reveals nothing about the node.
func (s *State) Public(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	text := "ready\n"
	if !s.IsReady() {
		w.WriteHeader(http.StatusServiceUnavailable)
		text = "not ready\n"
	}
	_, _ = io.WriteString(w, text) // the client may have disconnected
}

// checks returns the node's status in a phase, and its dependencies.
func (s *State) checks(p *phase) (status string, checks []check) {
	status, checks = p.name, []check{{"accepting", p.ready, p.reason}}
	s.mu.Lock()
	needs := s.needs
	s.mu.Unlock()
	for _, n := range needs {
		c := check{n.name, true, "ok"}
		if err := n.lack(); err != nil {
			c.OK, c.Reason = false, err.Error()
			if p.ready {
				status = "waiting"
			}
		}
		checks = append(checks, c)
	}
	return status, checks
}

func failing(checks []check) bool {
	return slices.ContainsFunc(checks, func(c check) bool { return !c.OK })
}

func (s *State) reply(w http.ResponseWriter, status string, checks []check, connections *int) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if failing(checks) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	// The only possible error is a disconnected client.
	_ = json.NewEncoder(w).Encode(answer{status, checks, s.node, s.version, int64(time.Since(s.started).Seconds()), connections})
}

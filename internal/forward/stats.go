package forward

import (
	"maps"
	"sync"
)

// An Outcome is the outcome of a request to be forwarded.
type Outcome string

// The outcomes.
const (
	OK      Outcome = "ok"       // the owner has answered
	NoOwner Outcome = "no_owner" // the owner is not in the directory, or its address refuses connections
	Failed  Outcome = "failed"   // the owner did not answer in time, or not as an owner does; or this node closed
	Gone    Outcome = "gone"     // the client disconnected before there was an answer
	// Undecided: the directory did not answer in time; or no connection to the owner could be made
	// in time; or the owner has closed the connection without an answer; or one of the two nodes
	// has too many forwarded requests.
	Undecided Outcome = "undecided"
)

// A Refusal is the reason why a forwarded request is not served.
type Refusal string

// The refusals.
const (
	Unsigned    Refusal = "unsigned"
	Forged      Refusal = "forged"
	Misdirected Refusal = "misdirected"
	Stale       Refusal = "stale"
)

var meanings = map[Refusal]string{
	Unsigned:    "the request has no signature: only nodes of the cluster may send it",
	Forged:      "the signature is wrong: the request was changed in transit, or the nodes do not have the same cluster secret",
	Misdirected: "the request is for another node, which had this address before",
	Stale:       "the request was signed more than 30 seconds ago, or ahead: the nodes' clocks must agree",
}

// Stats are a snapshot of a forwarder's numbers.
type Stats struct {
	// Open counts the requests and WebSockets of other nodes' sessions that currently pass through
	// this node, and Received those that other nodes currently forward to it.
	Open, Received int
	// Forwarded counts forwarded requests, by outcome; Refused counts received requests that were
	// not served, by reason. All outcomes and reasons are present, possibly with zero.
	Forwarded map[Outcome]uint64
	Refused   map[Refusal]uint64
}

type counters struct {
	mu       sync.Mutex
	outcomes map[Outcome]uint64
	refusals map[Refusal]uint64
}

func (c *counters) init() {
	c.outcomes = map[Outcome]uint64{OK: 0, NoOwner: 0, Failed: 0, Gone: 0, Undecided: 0}
	c.refusals = map[Refusal]uint64{Unsigned: 0, Forged: 0, Misdirected: 0, Stale: 0}
}

func (c *counters) forwarded(o Outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outcomes[o]++
}

func (c *counters) refused(r Refusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refusals[r]++
}

// Stats returns the current numbers.
func (f *Forwarder) Stats() Stats {
	f.mu.Lock()
	open := len(f.passages)
	f.mu.Unlock()
	f.stats.mu.Lock()
	defer f.stats.mu.Unlock()
	return Stats{Open: open, Received: f.o.Incoming.Open(), Forwarded: maps.Clone(f.stats.outcomes), Refused: maps.Clone(f.stats.refusals)}
}

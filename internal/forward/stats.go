package forward

import "maps"

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

func (f *Forwarder) countOutcome(o Outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.outcomes[o]++
}

func (f *Forwarder) countRefusal(r Refusal) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refusals[r]++
}

// Stats returns the current numbers.
func (f *Forwarder) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Stats{Open: len(f.passages), Received: f.o.Incoming.Open(), Forwarded: maps.Clone(f.outcomes), Refused: maps.Clone(f.refusals)}
}

package socketio

import (
	"slices"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// An audience is the set of nodes whose answers make a query complete.
type audience struct {
	// members are the cluster's nodes as read before the query was published.
	members []adapter.Member
	// all means that every member must answer. Otherwise as many nodes must answer as the query
	// was handed to. That number is a hint: it counts connections that their node has abandoned.
	// But it includes nodes too new to be among the members, so it applies until the membership has
	// been read again.
	all       bool
	receivers int
}

// mayAnswer reports whether a node that has not answered at all may still do so, given the membership
// as it was read after the query was published. A node that has left the cluster, or whose feed was
// interrupted, may never have received the query.
func mayAnswer(m adapter.Member, now []adapter.Member) bool {
	return slices.ContainsFunc(now, func(n adapter.Member) bool {
		return n.ID == m.ID && n.Generation == m.Generation && !n.CatchingUp
	})
}

// joined returns the nodes that were not among the members before: they have joined since, or
// just before. If the query was handed to more nodes than have answered, one of them may have
// received it.
func (of *audience) joined(now []adapter.Member) []adapter.Member {
	return slices.DeleteFunc(slices.Clone(now), func(m adapter.Member) bool { return knows(of.members, m.ID) })
}

func knows(members []adapter.Member, id adapter.NodeID) bool {
	return slices.ContainsFunc(members, func(m adapter.Member) bool { return m.ID == id })
}

// progress takes the answers that have arrived and reports whether more are possible.
func (q *query) progress() (got []Answer, complete bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	got, q.answers = q.answers, nil
	for id, waiting := range q.nodes {
		if len(waiting) > 0 && !q.left[id] {
			return got, false
		}
	}
	enough, fresh := len(q.nodes) >= q.receivers, q.now != nil
	waits := func(m adapter.Member) bool {
		asked := !m.CatchingUp || !enough // its feed may have been resumed since it was listed
		return q.nodes[m.ID] == nil && asked && (!fresh || mayAnswer(m, q.now))
	}
	switch {
	case enough && !q.all:
		return got, true
	case !enough && (!fresh || slices.ContainsFunc(q.joined(q.now), waits)):
		return got, false
	}
	// Without members the other nodes are unknown.
	return got, q.members != nil && !slices.ContainsFunc(q.members, waits)
}

// unanswered returns the error that ends a query, or nil if all answered.
func (q *query) unanswered(cause error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := &UnansweredError{Sockets: slices.Clone(q.missing), Err: cause}
	for id, waiting := range q.nodes {
		for who := range waiting {
			if who == "" {
				e.Nodes = append(e.Nodes, id)
			} else {
				e.Sockets = append(e.Sockets, who)
			}
		}
	}
	now := q.now
	if now == nil {
		now = q.members
	}
	all := slices.Clone(q.members)
	if len(q.nodes) < q.receivers {
		all = append(all, q.joined(now)...)
	} else if !q.all { // enough of the nodes that were connected have answered
		all = slices.DeleteFunc(all, func(m adapter.Member) bool { return !knows(now, m.ID) || mayAnswer(m, now) })
	}
	for _, m := range all {
		if q.nodes[m.ID] == nil {
			e.Nodes = append(e.Nodes, m.ID)
		}
	}
	slices.Sort(e.Sockets)
	slices.Sort(e.Nodes)
	if cause == nil && len(e.Sockets) == 0 && len(e.Nodes) == 0 {
		return nil
	}
	return e
}

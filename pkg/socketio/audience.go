package socketio

import (
	"slices"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// An audience is the set of nodes whose answers make a query complete.
type audience struct {
	// members are the cluster's nodes as read before the query was published.
	members []adapter.Member
	// but is the member that receives no query, if any.
	but adapter.NodeID
	// all means that every member must answer. Otherwise as many nodes must answer as the query
	// was handed to. That number is a hint: it counts connections that their node has abandoned.
	// But it includes nodes too new to be among the members, so it applies until the membership has
	// been read again.
	all       bool
	receivers int
}

// without returns the audience without a node that receives the query but does not answer.
func (of audience) without(id adapter.NodeID) audience {
	of.but = id
	of.receivers--
	return of
}

// mayAnswer reports whether a node that has not answered at all may still do so, given the membership
// as it was read after the query was published. A node that has left the cluster, or whose feed was
// interrupted, may never have received the query.
func mayAnswer(m adapter.Member, now []adapter.Member) bool {
	return slices.ContainsFunc(now, func(n adapter.Member) bool {
		return n.ID == m.ID && n.Generation == m.Generation && !n.CatchingUp
	})
}

// newcomers returns the nodes that were not among the members before: they have joined since, or
// just before. If the query was handed to more nodes than have answered, one of them may have
// received it.
func (of *audience) newcomers(now []adapter.Member) []adapter.Member {
	return slices.DeleteFunc(slices.Clone(now), func(m adapter.Member) bool { return knows(of.members, m.ID) })
}

func knows(members []adapter.Member, id adapter.NodeID) bool {
	return slices.ContainsFunc(members, func(m adapter.Member) bool { return m.ID == id })
}

// progress takes the answers that have arrived and reports whether more are possible. fresh means
// that now was read after the query was published.
func (q *query) progress(of audience, now []adapter.Member, fresh bool) (got []Answer, complete bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	got, q.answers = q.answers, nil
	for id, waiting := range q.nodes {
		if len(waiting) > 0 && !q.left[id] {
			return got, false
		}
	}
	enough := len(q.nodes) >= of.receivers
	waits := func(m adapter.Member) bool {
		asked := !m.CatchingUp || !enough // its feed may have been resumed since it was listed
		return q.silent(of, m) && asked && (!fresh || mayAnswer(m, now))
	}
	switch {
	case enough && !of.all:
		return got, true
	case !enough && (!fresh || slices.ContainsFunc(of.newcomers(now), waits)):
		return got, false
	}
	// Without members the other nodes are unknown.
	return got, of.members != nil && !slices.ContainsFunc(of.members, waits)
}

// silent reports whether a node should have answered but has not. q.mu is held.
func (q *query) silent(of audience, m adapter.Member) bool {
	return m.ID != of.but && q.nodes[m.ID] == nil
}

// unanswered returns the error that ends a query, or nil if all answered.
func (q *query) unanswered(of audience, now []adapter.Member, cause error) error {
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
	enough := !of.all && len(q.nodes) >= of.receivers // of the nodes that were connected
	for _, m := range of.members {
		if q.silent(of, m) && (!enough || knows(now, m.ID) && !mayAnswer(m, now)) {
			e.Nodes = append(e.Nodes, m.ID)
		}
	}
	if len(q.nodes) < of.receivers {
		for _, m := range of.newcomers(now) {
			if q.silent(of, m) {
				e.Nodes = append(e.Nodes, m.ID)
			}
		}
	}
	slices.Sort(e.Sockets)
	slices.Sort(e.Nodes)
	if cause == nil && len(e.Sockets) == 0 && len(e.Nodes) == 0 {
		return nil
	}
	return e
}

package socketio

import (
	"slices"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// An audience says whose answers make a question complete.
type audience struct {
	// members are the nodes of the cluster as they were before it was asked.
	members []adapter.Member
	// but is the one of them that is not asked, if any.
	but adapter.NodeID
	// all of them must answer; otherwise as many nodes as it was handed to. That is
	// a hint only: a connection that its node has abandoned counts. But it knows of
	// nodes that are too new to be among the members, so it holds until these have
	// been looked at again.
	all       bool
	receivers int
}

// without returns the audience without a node that hears the question, as all do,
// and keeps silent.
func (of audience) without(id adapter.NodeID) audience {
	of.but = id
	of.receivers--
	return of
}

// waitsFor reports whether an answer of a node that has not said anything may
// still come, given what is known of the cluster now. A node that has left, or
// whose feed was interrupted, may never have heard the question.
func waitsFor(m adapter.Member, now []adapter.Member) bool {
	return !m.CatchingUp && slices.Contains(now, m)
}

// newcomers are nodes that are not among the members as they were before: they have
// entered since, or just before. Where the question was handed to more nodes than
// have answered, one of them may have got it.
func (of *audience) newcomers(now []adapter.Member) []adapter.Member {
	return slices.DeleteFunc(slices.Clone(now), func(m adapter.Member) bool { return knows(of.members, m.ID) })
}

func knows(members []adapter.Member, id adapter.NodeID) bool {
	return slices.ContainsFunc(members, func(m adapter.Member) bool { return m.ID == id })
}

// progress takes the answers that have come, and says whether there can be more.
// fresh says that now was heard after the question was asked.
func (a *question) progress(of audience, now []adapter.Member, fresh bool) (got []Answer, complete bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	got, a.answers = a.answers, nil
	for id, waiting := range a.nodes {
		if len(waiting) > 0 && !a.left[id] {
			return got, false
		}
	}
	waits := func(m adapter.Member) bool { return a.silent(of, m) && waitsFor(m, now) }
	switch enough := len(a.nodes) >= of.receivers; {
	case enough && !of.all:
		return got, true
	case !enough && (!fresh || slices.ContainsFunc(of.newcomers(now), waits)):
		return got, false
	}
	// Without members nobody knows who else there is.
	return got, of.members != nil && !slices.ContainsFunc(of.members, waits)
}

// silent reports whether a node should answer and has not yet. a.mu is held.
func (a *question) silent(of audience, m adapter.Member) bool {
	return m.ID != of.but && a.nodes[m.ID] == nil
}

// unanswered returns the error that ends a question, or nil if all answered.
func (a *question) unanswered(of audience, now []adapter.Member, cause error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := &UnansweredError{Sockets: slices.Clone(a.missing), Err: cause}
	for id, waiting := range a.nodes {
		for who := range waiting {
			if who == "" {
				e.Nodes = append(e.Nodes, id)
			} else {
				e.Sockets = append(e.Sockets, who)
			}
		}
	}
	enough := !of.all && len(a.nodes) >= of.receivers // of those that were connected
	for _, m := range of.members {
		if a.silent(of, m) && (!enough || knows(now, m.ID) && !waitsFor(m, now)) {
			e.Nodes = append(e.Nodes, m.ID)
		}
	}
	if len(a.nodes) < of.receivers {
		for _, m := range of.newcomers(now) {
			if a.silent(of, m) {
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

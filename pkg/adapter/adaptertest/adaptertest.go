// Package adaptertest tests implementations of [adapter.Adapter] against its contract.
//
// An implementation's own test is a few lines:
//
//	func TestContract(t *testing.T) {
//		adaptertest.Run(t, func(t *testing.T, o adaptertest.Options) adaptertest.Cluster {
//			return adapter.NewMemory(adapter.MemoryOptions{BacklogLimit: o.BacklogLimit, BacklogTTL: o.BacklogTTL})
//		})
//	}
//
// The tests do not depend on how an implementation works. They allow everything that the contract
// allows: nodes may stay subscribed to rooms longer than needed, backlogs may hold more events than
// required, and departed nodes may be detected late.
package adaptertest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A Cluster is the cluster of one test: without nodes and with a history of its own.
type Cluster interface {
	// Node joins the cluster as one more node. The test closes it.
	Node(id adapter.NodeID) (adapter.Adapter, error)

	// Reset makes the cluster lose its history, as when a store restarts empty. The nodes may
	// detect it later.
	Reset()
}

// Options are a test's requirements on its cluster.
type Options struct {
	BacklogLimit int           // as in adapter.MemoryOptions
	BacklogTTL   time.Duration // as in adapter.MemoryOptions
}

// A Maker makes a cluster for one test, and cleans up after it with t.Cleanup.
type Maker func(t *testing.T, o Options) Cluster

// Run tests an implementation with one partition. Its subtests are the contract's
// rules.
func Run(t *testing.T, newCluster Maker) {
	for _, rule := range rules {
		t.Run(rule.name, func(t *testing.T) { rule.test(t, newCluster) })
	}
}

// RunPartitions tests an implementation with several partitions: all rules but
// those whose tests rest on one order of all events.
func RunPartitions(t *testing.T, newCluster Maker) {
	for _, rule := range rules {
		if !rule.oneOrder {
			t.Run(rule.name, func(t *testing.T) { rule.test(t, newCluster) })
		}
	}
}

var rules = []struct {
	name     string
	test     func(t *testing.T, newCluster Maker)
	oneOrder bool
}{
	{"EventsArriveAsTheyWerePublished", eventsArriveAsTheyWerePublished, true},
	{"EveryNodeSeesOneOrder", everyNodeSeesOneOrder, true},
	{"AnEventComesOncePerNode", anEventComesOncePerNode, true},
	{"AMemberTakesAnEventOnce", aMemberTakesAnEventOnce, false},
	{"AReceiptNamesEveryCopy", aReceiptNamesEveryCopy, false},
	{"EventWithoutTargetIsNotPublished", eventWithoutTargetIsNotPublished, false},
	{"TooLargeEventsAreNotPublished", tooLargeEventsAreNotPublished, false},
	{"ReceiversAreCounted", receiversAreCounted, false},
	{"NewRoomsAreCounted", newRoomsAreCounted, false},

	{"AOnceIDIsPublishedOnce", aOnceIDIsPublishedOnce, false},
	{"AOnceIDIsOfOneEvent", aOnceIDIsOfOneEvent, false},
	{"ARefusedEventKeepsNoOnceID", aRefusedEventKeepsNoOnceID, false},
	{"AOnceIDEndsWithItsHistory", aOnceIDEndsWithItsHistory, true},

	{"JoinPositionsSeparateEarlierFromLaterEvents", joinPositionsSeparateEarlierFromLaterEvents, false},
	{"NothingIsMissedAfterSubscribe", nothingIsMissedAfterSubscribe, false},
	{"SubscriptionsCount", subscriptionsCount, true},
	{"ARoomCanBeLeftAndJoinedAgain", aRoomCanBeLeftAndJoinedAgain, false},
	{"AFailedSubscribeLeavesNothing", aFailedSubscribeLeavesNothing, true},
	{"NodeRoomReachesEveryNode", nodeRoomReachesEveryNode, false},

	{"HeadIsTheEnd", headIsTheEnd, false},
	{"TheFeedPassesRoomsWithoutSubscription", theFeedPassesRoomsWithoutSubscription, false},
	{"ProgressIsReported", progressIsReported, false},
	{"HeadRefusesForeignCursors", headRefusesForeignCursors, true},
	{"ALostHistoryIsReported", aLostHistoryIsReported, true},

	{"ReplayMergesRooms", replayMergesRooms, true},
	{"ReplayLeavesOutWhatIsNotStored", replayLeavesOutWhatIsNotStored, false},
	{"ReplayRespectsTheLimit", replayRespectsTheLimit, false},
	{"ReplayIgnoresOtherRooms", replayIgnoresOtherRooms, false},
	{"ReplayReturnsErrorsFirst", replayReturnsErrorsFirst, false},
	{"ReplayKeepsToOneHistory", replayKeepsToOneHistory, false},
	{"ReplayWithoutBacklogs", replayWithoutBacklogs, false},
	{"ReplayRefusesExpiredCursors", replayRefusesExpiredCursors, false},
	{"ReplayCanBeStopped", replayCanBeStopped, false},
	{"ReplayBoundsPayloads", replayBoundsPayloads, false},
	{"FetchReportsMissingEvents", fetchReportsMissingEvents, false},
	{"HistoryPages", historyPages, false},
	{"HistoryPagesInBytes", historyPagesInBytes, false},
	{"HistoryPagesUpToAPosition", historyPagesUpToAPosition, false},
	{"HistoryPagesAfterAPosition", historyPagesAfterAPosition, false},
	{"HistoryPagesTogether", historyPagesTogether, false},
	{"HistoryAndFeedMeet", historyAndFeedMeet, false},
	{"ReplayAndFeedMeet", replayAndFeedMeet, true},

	{"MessagesArrive", messagesArrive, false},
	{"NodesKnowEachOther", nodesKnowEachOther, false},
	{"CloseEndsCalls", closeEndsCalls, false},
	{"ContextsEndCalls", contextsEndCalls, false},
}

// patience bounds a test's waits.
var patience = 20 * time.Second

// A node is an adapter with helper methods for tests.
type node struct {
	adapter.Adapter
	t *testing.T
}

// join creates nodes of one cluster. They are closed with the test.
func join(t *testing.T, c Cluster, ids ...adapter.NodeID) []*node {
	t.Helper()
	var nodes []*node
	for _, id := range ids {
		a, err := c.Node(id)
		if err != nil {
			t.Fatalf("joining as %s: %v", id, err)
		}
		t.Cleanup(func() { _ = a.Close() })
		if a.Node() != id {
			t.Fatalf("Node() = %q, want %q", a.Node(), id)
		}
		nodes = append(nodes, &node{a, t})
	}
	return nodes
}

// one makes a cluster of one node, and two one of two.
func one(t *testing.T, newCluster Maker, o Options) *node {
	t.Helper()
	return join(t, newCluster(t, o), "a")[0]
}

func two(t *testing.T, newCluster Maker, o Options) (a, b *node) {
	t.Helper()
	nodes := join(t, newCluster(t, o), "a", "b")
	return nodes[0], nodes[1]
}

// deadline returns a context for operations that must not take long.
func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// event makes a stored event.
func event(data string, to ...rooms.Room) adapter.Event {
	return adapter.Event{Target: rooms.Target{To: to}, Stored: true, Data: []byte(data)}
}

func room(name string) rooms.Room { return rooms.InNamed("/", name) }

func (n *node) publish(e adapter.Event) adapter.Cursor {
	n.t.Helper()
	r, err := n.Publish(deadline(n.t), e)
	if err != nil {
		n.t.Fatalf("%s: Publish: %v", n.Node(), err)
	}
	return r.Cursor
}

func (n *node) subscribe(to ...rooms.Room) adapter.Cursor {
	n.t.Helper()
	c, err := n.Subscribe(deadline(n.t), to...)
	if err != nil {
		n.t.Fatalf("%s: Subscribe: %v", n.Node(), err)
	}
	return c
}

func (n *node) head(seen ...adapter.Cursor) adapter.Cursor {
	n.t.Helper()
	c, err := n.Head(deadline(n.t), seen...)
	if err != nil {
		n.t.Fatalf("%s: Head: %v", n.Node(), err)
	}
	return c
}

func (n *node) next() adapter.Event {
	n.t.Helper()
	e, err := n.Next(deadline(n.t))
	if err != nil {
		n.t.Fatalf("%s: Next: %v", n.Node(), err)
	}
	return e
}

// upTo returns the feed's events up to and including the one at a cursor.
func (n *node) upTo(end adapter.Cursor) []adapter.Event {
	n.t.Helper()
	var events []adapter.Event
	for {
		e := n.next()
		events = append(events, e)
		switch e.Position.Compare(end.At) {
		case 0:
			return events
		case 1:
			n.t.Fatalf("%s: the feed is at %q, past an event that it should hold", n.Node(), e.Data)
		}
	}
}

// expect reads these events from the feed.
func (n *node) expect(want ...string) {
	n.t.Helper()
	for i, w := range want {
		if e := n.next(); string(e.Data) != w {
			n.t.Fatalf("%s: event %d is %q, want %q of %q", n.Node(), i, e.Data, w, want)
		}
	}
}

// expectNothingElse checks that the feeds of all nodes of a cluster are empty up to now: an event
// for all nodes must be the next.
func expectNothingElse(nodes ...*node) {
	nodes[0].t.Helper()
	nodes[0].publish(adapter.Event{Target: rooms.Target{To: []rooms.Room{rooms.InNodes()}}, Data: []byte("end")})
	for _, n := range nodes {
		n.expect("end")
	}
}

// replay collects a replay. Its error, if any, must come first.
func (n *node) replay(after map[rooms.Room]adapter.Cursor, upTo adapter.Cursor) ([]adapter.Event, error) {
	n.t.Helper()
	var events []adapter.Event
	for e, err := range n.Replay(deadline(n.t), after, upTo, 0) {
		if err != nil {
			if len(events) > 0 {
				n.t.Errorf("%s: Replay failed after %d events: %v, want 0", n.Node(), len(events), err)
			}
			return nil, err
		}
		events = append(events, e)
	}
	return events, nil
}

func (n *node) expectReplay(after map[rooms.Room]adapter.Cursor, upTo adapter.Cursor, want ...string) {
	n.t.Helper()
	events, err := n.replay(after, upTo)
	if err != nil {
		n.t.Errorf("%s: Replay: %v, want %q", n.Node(), err, want)
		return
	}
	if got := payloads(events); !slices.Equal(got, want) {
		n.t.Errorf("%s: Replay gave %q, want %q", n.Node(), got, want)
	}
}

func (n *node) expectNoReplay(after map[rooms.Room]adapter.Cursor, upTo adapter.Cursor, want error) {
	n.t.Helper()
	if events, err := n.replay(after, upTo); !errors.Is(err, want) {
		n.t.Errorf("%s: Replay gave %q and the error %v, want %v", n.Node(), payloads(events), err, want)
	}
}

func payloads(events []adapter.Event) []string {
	var s []string
	for _, e := range events {
		s = append(s, string(e.Data))
	}
	return s
}

// eventually polls until a condition holds.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx := deadline(t)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

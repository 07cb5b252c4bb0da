package adaptertest

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mutantVar names the mutant that a child process runs.
const mutantVar = "ADAPTERTEST_MUTANT"

// Every rule can fail: each mutant breaks one, and a child process that runs this test with
// the mutant must fail in that rule.
func TestMutants(t *testing.T) {
	all := mutants()
	if name := os.Getenv(mutantVar); name != "" {
		patience = 2 * time.Second
		Run(t, func(t *testing.T, o Options) Cluster {
			m := adapter.NewMemory(adapter.MemoryOptions{BacklogLimit: o.BacklogLimit, BacklogTTL: o.BacklogTTL})
			return mutantCluster{m, all[name].mutate}
		})
		return
	}
	for name, mutant := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			run := exec.CommandContext(ctx, self, "-test.run=^TestMutants$/^"+mutant.rule+"$")
			run.Env = append(os.Environ(), mutantVar+"="+name)
			out, err := run.CombinedOutput()
			if err == nil || !bytes.Contains(out, []byte("--- FAIL: TestMutants/"+mutant.rule+" ")) {
				t.Errorf("it survives %s: %v\n%s", mutant.rule, err, out)
			}
		})
	}
}

type mutantCluster struct {
	*adapter.Memory
	mutate func(*mutantNode)
}

func (c mutantCluster) Node(id adapter.NodeID) (adapter.Adapter, error) {
	a, err := c.Memory.Node(id)
	if err != nil {
		return nil, err
	}
	n := &mutantNode{
		Adapter: a, publish: a.Publish, subscribe: a.Subscribe, unsubscribe: a.Unsubscribe, next: a.Next,
		onProgress: a.(adapter.ProgressReporter).OnProgress, head: a.Head, replay: a.Replay, fetch: a.Fetch, history: a.History, send: a.Send, nodes: a.Nodes,
	}
	c.mutate(n)
	return n, nil
}

// A mutantNode is a correct adapter with some methods replaced.
type mutantNode struct {
	adapter.Adapter
	publish     func(context.Context, adapter.Event) (adapter.Receipt, error)
	subscribe   func(context.Context, ...rooms.Room) (adapter.Cursor, error)
	unsubscribe func(...rooms.Room)
	next        func(context.Context) (adapter.Event, error)
	onProgress  func(func(adapter.Cursor))
	head        func(context.Context, ...adapter.Cursor) (adapter.Cursor, error)
	replay      func(context.Context, map[rooms.Room]adapter.Cursor, adapter.Cursor, int) iter.Seq2[adapter.Event, error]
	fetch       func(context.Context, adapter.Cursor, []adapter.Place) ([]adapter.Event, error)
	history     func(context.Context, rooms.Room, adapter.Page) ([]adapter.Event, bool, error)
	send        func(context.Context, adapter.NodeID, adapter.Message) error
	nodes       func(context.Context) ([]adapter.Member, error)
}

func (n *mutantNode) Publish(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
	return n.publish(ctx, e)
}

func (n *mutantNode) Subscribe(ctx context.Context, r ...rooms.Room) (adapter.Cursor, error) {
	return n.subscribe(ctx, r...)
}

func (n *mutantNode) Unsubscribe(r ...rooms.Room) { n.unsubscribe(r...) }

func (n *mutantNode) OnProgress(f func(adapter.Cursor)) { n.onProgress(f) }

func (n *mutantNode) Next(ctx context.Context) (adapter.Event, error) { return n.next(ctx) }

func (n *mutantNode) Head(ctx context.Context, seen ...adapter.Cursor) (adapter.Cursor, error) {
	return n.head(ctx, seen...)
}

func (n *mutantNode) Replay(ctx context.Context, after map[rooms.Room]adapter.Cursor, upTo adapter.Cursor, payload int) iter.Seq2[adapter.Event, error] {
	return n.replay(ctx, after, upTo, payload)
}

func (n *mutantNode) Fetch(ctx context.Context, history adapter.Cursor, places []adapter.Place) ([]adapter.Event, error) {
	return n.fetch(ctx, history, places)
}

func (n *mutantNode) History(ctx context.Context, r rooms.Room, page adapter.Page) ([]adapter.Event, bool, error) {
	return n.history(ctx, r, page)
}

func (n *mutantNode) Send(ctx context.Context, to adapter.NodeID, m adapter.Message) error {
	return n.send(ctx, to, m)
}

func (n *mutantNode) Nodes(ctx context.Context) ([]adapter.Member, error) { return n.nodes(ctx) }

type mutant struct {
	rule   string
	mutate func(*mutantNode)
}

func mutants() map[string]mutant {
	type (
		cursors = map[rooms.Room]adapter.Cursor
		replays = iter.Seq2[adapter.Event, error]
	)
	var published atomic.Int64 // by all nodes of a mutant

	laggingHead := func(n *mutantNode) {
		var last adapter.Cursor
		n.head = func(ctx context.Context, seen ...adapter.Cursor) (adapter.Cursor, error) {
			now, err := n.Adapter.Head(ctx, seen...)
			head := last
			if last = now; head.IsZero() {
				head = now
			}
			return head, err
		}
	}
	endlessReplay := func(n *mutantNode) {
		n.replay = func(ctx context.Context, after cursors, upTo adapter.Cursor, payload int) replays {
			end := upTo
			for range 50 { // widens the window until an event is published, if one is
				if end, _ = n.Adapter.Head(ctx); end != upTo {
					break
				}
				time.Sleep(time.Millisecond)
			}
			return n.Adapter.Replay(ctx, after, end, payload)
		}
	}
	lateSubscribe := func(n *mutantNode) {
		n.subscribe = func(ctx context.Context, r ...rooms.Room) (adapter.Cursor, error) {
			joined, _ := n.Adapter.Head(ctx)
			time.Sleep(time.Millisecond) // widens the window
			_, err := n.Adapter.Subscribe(ctx, r...)
			return joined, err
		}
	}
	endlessPages := func(n *mutantNode) {
		n.history = func(ctx context.Context, r rooms.Room, page adapter.Page) ([]adapter.Event, bool, error) {
			page.UpTo = adapter.Cursor{}
			return n.Adapter.History(ctx, r, page)
		}
	}
	nothingTrimmed := func(n *mutantNode) {
		n.replay = func(ctx context.Context, after cursors, upTo adapter.Cursor, payload int) replays {
			return func(yield func(adapter.Event, error) bool) {
				for e, err := range n.Adapter.Replay(ctx, after, upTo, payload) {
					if errors.Is(err, adapter.ErrTrimmed) || !yield(e, err) {
						return
					}
				}
			}
		}
	}

	return map[string]mutant{
		"payloads as text": {"EventsArriveAsTheyWerePublished", func(n *mutantNode) {
			n.publish = func(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
				e.Data = []byte(strings.ToValidUTF8(string(e.Data), "?"))
				return n.Adapter.Publish(ctx, e)
			}
		}},
		"cursors run ahead": {"EventsArriveAsTheyWerePublished", func(n *mutantNode) {
			n.next = func(ctx context.Context) (adapter.Event, error) {
				e, err := n.Adapter.Next(ctx)
				e.Cursor.At.Seq++
				return e, err
			}
		}},
		"an event names one of its rooms": {"AMemberTakesAnEventOnce", func(n *mutantNode) {
			n.next = func(ctx context.Context) (adapter.Event, error) {
				e, err := n.Adapter.Next(ctx)
				e.Target.To = e.Target.To[:min(len(e.Target.To), 1)]
				return e, err
			}
		}},
		"a replay names one of an event's rooms": {"AMemberTakesAnEventOnce", func(n *mutantNode) {
			n.replay = func(ctx context.Context, after cursors, upTo adapter.Cursor, payload int) replays {
				return func(yield func(adapter.Event, error) bool) {
					for e, err := range n.Adapter.Replay(ctx, after, upTo, payload) {
						if e.Target.To = e.Target.To[:min(len(e.Target.To), 1)]; len(e.Target.Except) > 0 {
							e.Target.Except = nil
						}
						if !yield(e, err) {
							return
						}
					}
				}
			}
		}},
		"too many rooms are cut off": {"TooLargeEventsAreNotPublished", func(n *mutantNode) {
			n.publish = func(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
				e.Target.To = e.Target.To[:min(len(e.Target.To), adapter.MaxRooms)]
				return n.Adapter.Publish(ctx, e)
			}
		}},
		"pairs change places": {"EveryNodeSeesOneOrder", func(n *mutantNode) {
			var held *adapter.Event
			n.next = func(ctx context.Context) (adapter.Event, error) {
				if e := held; e != nil {
					held = nil
					return *e, nil
				}
				first, err := n.Adapter.Next(ctx)
				if err != nil {
					return first, err
				}
				held = &first
				return n.Adapter.Next(ctx)
			}
		}},
		"once for each room": {"AnEventComesOncePerNode", func(n *mutantNode) {
			var again []adapter.Event
			n.next = func(ctx context.Context) (adapter.Event, error) {
				if len(again) > 0 {
					e := again[0]
					again = again[1:]
					return e, nil
				}
				e, err := n.Adapter.Next(ctx)
				for range len(e.Target.To) - 1 {
					again = append(again, e)
				}
				return e, err
			}
		}},
		"nobody is everybody": {"EventWithoutTargetIsNotPublished", func(n *mutantNode) {
			n.publish = func(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
				if len(e.Target.To) == 0 {
					e.Target.To = []rooms.Room{rooms.InNodes()}
				}
				return n.Adapter.Publish(ctx, e)
			}
		}},
		"one receiver": {"ReceiversAreCounted", func(n *mutantNode) {
			n.publish = func(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
				r, err := n.Adapter.Publish(ctx, e)
				r.Receivers = 1
				return r, err
			}
		}},

		"no new room": {"NewRoomsAreCounted", func(n *mutantNode) {
			n.publish = func(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
				r, err := n.Adapter.Publish(ctx, e)
				r.NewRooms = 0
				return r, err
			}
		}},

		"once ids are ignored": {"AOnceIDIsPublishedOnce", func(n *mutantNode) {
			n.publish = func(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
				e.Once = nil
				return n.Adapter.Publish(ctx, e)
			}
		}},
		"once ids of one node": {"AOnceIDIsPublishedOnce", func(n *mutantNode) {
			n.publish = func(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
				if e.Once != nil {
					once := *e.Once
					once.ID[15] = n.Node()[0]
					e.Once = &once
				}
				return n.Adapter.Publish(ctx, e)
			}
		}},
		"a repeated event is at the newest position": {"AOnceIDIsPublishedOnce", func(n *mutantNode) {
			n.publish = func(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
				r, err := n.Adapter.Publish(ctx, e)
				if r.Repeated {
					r.Cursor.At.Ms++
				}
				return r, err
			}
		}},
		"repeated events are not told apart": {"AOnceIDIsPublishedOnce", func(n *mutantNode) {
			n.publish = func(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
				r, err := n.Adapter.Publish(ctx, e)
				r.Repeated = false
				return r, err
			}
		}},
		"contents are not compared": {"AOnceIDIsOfOneEvent", func(n *mutantNode) {
			n.publish = func(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
				if e.Once != nil {
					e.Once = &adapter.Once{ID: e.Once.ID}
				}
				return n.Adapter.Publish(ctx, e)
			}
		}},
		"the id is kept first": {"ARefusedEventKeepsNoOnceID", func(n *mutantNode) {
			known := make(map[[16]byte]adapter.Receipt)
			n.publish = func(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
				if e.Once == nil {
					return n.Adapter.Publish(ctx, e)
				}
				if r, again := known[e.Once.ID]; again {
					r.Repeated = true
					return r, nil
				}
				r, err := n.Adapter.Publish(ctx, e)
				known[e.Once.ID] = r
				return r, err
			}
		}},
		"ids outlive their history": {"AOnceIDEndsWithItsHistory", func(n *mutantNode) {
			known := make(map[[16]byte]adapter.Receipt)
			n.publish = func(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
				if e.Once == nil {
					return n.Adapter.Publish(ctx, e)
				}
				if r, again := known[e.Once.ID]; again {
					r.Repeated = true
					return r, nil
				}
				r, err := n.Adapter.Publish(ctx, e)
				known[e.Once.ID] = r
				return r, err
			}
		}},

		"join position from before": {"JoinPositionsSeparateEarlierFromLaterEvents", func(n *mutantNode) {
			lagging, _ := n.Adapter.Head(context.Background())
			n.subscribe = func(ctx context.Context, r ...rooms.Room) (adapter.Cursor, error) {
				_, err := n.Adapter.Subscribe(ctx, r...)
				return lagging, err
			}
		}},
		"join position from after": {"JoinPositionsSeparateEarlierFromLaterEvents", func(n *mutantNode) {
			n.subscribe = func(ctx context.Context, r ...rooms.Room) (adapter.Cursor, error) {
				c, err := n.Adapter.Subscribe(ctx, r...)
				c.At.Ms += 1000
				return c, err
			}
		}},
		"subscribed after the join position": {"NothingIsMissedAfterSubscribe", lateSubscribe},
		"subscriptions do not count": {"SubscriptionsCount", func(n *mutantNode) {
			heard := make(map[rooms.Room]bool)
			n.subscribe = func(ctx context.Context, all ...rooms.Room) (adapter.Cursor, error) {
				for _, r := range all {
					if !heard[r] {
						heard[r] = true
						if c, err := n.Adapter.Subscribe(ctx, r); err != nil {
							return c, err
						}
					}
				}
				return n.Adapter.Head(ctx)
			}
		}},
		"rooms are heard for ever": {"SubscriptionsCount", func(n *mutantNode) {
			n.unsubscribe = func(...rooms.Room) {}
		}},
		"a late unsubscribe hits the next join": {"ARoomCanBeLeftAndJoinedAgain", func(n *mutantNode) {
			var late []rooms.Room
			n.unsubscribe = func(r ...rooms.Room) {
				n.Adapter.Unsubscribe(r...)
				late = r
			}
			n.subscribe = func(ctx context.Context, r ...rooms.Room) (adapter.Cursor, error) {
				defer n.Adapter.Unsubscribe(late...)
				return n.Adapter.Subscribe(ctx, r...)
			}
		}},
		"half subscribed": {"AFailedSubscribeLeavesNothing", func(n *mutantNode) {
			n.subscribe = func(ctx context.Context, r ...rooms.Room) (adapter.Cursor, error) {
				c, err := n.Adapter.Subscribe(ctx, r...)
				if err != nil {
					_, _ = n.Adapter.Subscribe(context.WithoutCancel(ctx), r[0])
				}
				return c, err
			}
		}},
		"deaf to the nodes' room": {"NodeRoomReachesEveryNode", func(n *mutantNode) {
			n.Adapter.Unsubscribe(rooms.InNodes())
		}},

		"head lags": {"HeadIsTheEnd", laggingHead},
		"the feed's cursor stands still": {"TheFeedPassesRoomsWithoutSubscription", func(n *mutantNode) {
			begin, _ := n.Adapter.Head(context.Background())
			n.next = func(ctx context.Context) (adapter.Event, error) {
				e, err := n.Adapter.Next(ctx)
				e.Cursor = begin
				return e, err
			}
		}},
		"progress is kept to itself": {"ProgressIsReported", func(n *mutantNode) {
			n.onProgress = func(func(adapter.Cursor)) { n.Adapter.(adapter.ProgressReporter).OnProgress(func(adapter.Cursor) {}) }
		}},
		"any cursor will do": {"HeadRefusesForeignCursors", func(n *mutantNode) {
			n.head = func(ctx context.Context, _ ...adapter.Cursor) (adapter.Cursor, error) {
				return n.Adapter.Head(ctx)
			}
		}},
		"losses are hidden": {"ALostHistoryIsReported", func(n *mutantNode) {
			n.next = func(ctx context.Context) (adapter.Event, error) {
				for {
					e, err := n.Adapter.Next(ctx)
					if lost := new(adapter.LostError); !errors.As(err, &lost) {
						return e, err
					}
				}
			}
		}},

		"rooms are replayed one by one": {"ReplayMergesRooms", func(n *mutantNode) {
			n.replay = func(ctx context.Context, after cursors, upTo adapter.Cursor, payload int) replays {
				return func(yield func(adapter.Event, error) bool) {
					for r, c := range after {
						for e, err := range n.Adapter.Replay(ctx, cursors{r: c}, upTo, payload) {
							if !yield(e, err) {
								return
							}
						}
					}
				}
			}
		}},
		"replay from a copy that lags": {"ReplayMergesRooms", func(n *mutantNode) {
			n.replay = func(ctx context.Context, after cursors, upTo adapter.Cursor, payload int) replays {
				if upTo.At.Seq > 0 {
					upTo.At.Seq--
				} else {
					upTo.At.Ms--
				}
				return n.Adapter.Replay(ctx, after, upTo, payload)
			}
		}},
		"replay without an end": {"ReplayMergesRooms", endlessReplay},
		"everything is stored": {"ReplayLeavesOutWhatIsNotStored", func(n *mutantNode) {
			n.publish = func(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
				e.Stored = true
				return n.Adapter.Publish(ctx, e)
			}
		}},
		"trimming is not said":            {"ReplayRespectsTheLimit", nothingTrimmed},
		"no backlog means nothing missed": {"ReplayWithoutBacklogs", nothingTrimmed},
		"one backlog for all rooms": {"ReplayIgnoresOtherRooms", func(n *mutantNode) {
			n.publish = func(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
				published.Add(1)
				return n.Adapter.Publish(ctx, e)
			}
			n.replay = func(ctx context.Context, after cursors, upTo adapter.Cursor, payload int) replays {
				if published.Load() > 100 {
					return func(yield func(adapter.Event, error) bool) { yield(adapter.Event{}, adapter.ErrTrimmed) }
				}
				return n.Adapter.Replay(ctx, after, upTo, payload)
			}
		}},
		"errors come late": {"ReplayReturnsErrorsFirst", func(n *mutantNode) {
			n.replay = func(ctx context.Context, after cursors, upTo adapter.Cursor, payload int) replays {
				return func(yield func(adapter.Event, error) bool) {
					for e, err := range n.Adapter.Replay(ctx, after, upTo, payload) {
						if err != nil && !yield(e, nil) || !yield(e, err) {
							return
						}
					}
				}
			}
		}},
		"histories are mixed": {"ReplayKeepsToOneHistory", func(n *mutantNode) {
			n.replay = func(ctx context.Context, after cursors, upTo adapter.Cursor, payload int) replays {
				same := make(cursors)
				for r, c := range after {
					c.Epoch = upTo.Epoch
					same[r] = c
				}
				return n.Adapter.Replay(ctx, same, upTo, payload)
			}
		}},
		"replays hold a lock": {"ReplayCanBeStopped", func(n *mutantNode) {
			var replaying atomic.Bool
			n.publish = func(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
				if replaying.Load() {
					<-ctx.Done()
				}
				return n.Adapter.Publish(ctx, e)
			}
			n.replay = func(ctx context.Context, after cursors, upTo adapter.Cursor, payload int) replays {
				return func(yield func(adapter.Event, error) bool) {
					replaying.Store(true)
					defer replaying.Store(false)
					n.Adapter.Replay(ctx, after, upTo, payload)(yield)
				}
			}
		}},
		"all payloads are held": {"ReplayBoundsPayloads", func(n *mutantNode) {
			n.replay = func(ctx context.Context, after cursors, upTo adapter.Cursor, _ int) replays {
				return n.Adapter.Replay(ctx, after, upTo, 0)
			}
		}},
		"what is gone is left out": {"FetchReportsMissingEvents", func(n *mutantNode) {
			n.fetch = func(ctx context.Context, history adapter.Cursor, places []adapter.Place) (events []adapter.Event, err error) {
				for _, p := range places {
					if e, err := n.Adapter.Fetch(ctx, history, []adapter.Place{p}); err == nil {
						events = append(events, e...)
					}
				}
				return events, nil
			}
		}},
		"pages overlap": {"HistoryPages", func(n *mutantNode) {
			n.history = func(ctx context.Context, r rooms.Room, page adapter.Page) ([]adapter.Event, bool, error) {
				if !page.Before.IsZero() {
					page.Before.At.Seq++
				}
				return n.Adapter.History(ctx, r, page)
			}
		}},
		"pages of any size": {"HistoryPagesInBytes", func(n *mutantNode) {
			n.history = func(ctx context.Context, r rooms.Room, page adapter.Page) ([]adapter.Event, bool, error) {
				page.Bytes = 0
				return n.Adapter.History(ctx, r, page)
			}
		}},
		"what a page lacks is not said": {"HistoryPagesAfterAPosition", func(n *mutantNode) {
			n.history = func(ctx context.Context, r rooms.Room, page adapter.Page) ([]adapter.Event, bool, error) {
				events, more, err := n.Adapter.History(ctx, r, page)
				if errors.Is(err, adapter.ErrTrimmed) {
					err = nil
				}
				return events, more, err
			}
		}},
		"all get the newest page":           {"HistoryPagesTogether", endlessPages},
		"pages without an end":              {"HistoryPagesUpToAPosition", endlessPages},
		"a join with a page without an end": {"HistoryAndFeedMeet", endlessPages},
		"a join with a page from before it": {"HistoryAndFeedMeet", func(n *mutantNode) {
			early := make(map[rooms.Room][]adapter.Event)
			n.subscribe = func(ctx context.Context, all ...rooms.Room) (adapter.Cursor, error) {
				for _, r := range all {
					events, _, err := n.Adapter.History(ctx, r, adapter.Page{Events: 1000})
					if err != nil {
						return adapter.Cursor{}, err
					}
					early[r] = events
				}
				return n.Adapter.Subscribe(ctx, all...)
			}
			n.history = func(_ context.Context, r rooms.Room, page adapter.Page) ([]adapter.Event, bool, error) {
				events := early[r]
				return events[max(0, len(events)-page.Events):], len(events) > page.Events, nil
			}
		}},
		"a splice with an old end":            {"ReplayAndFeedMeet", laggingHead},
		"a splice without an end":             {"ReplayAndFeedMeet", endlessReplay},
		"a splice around a late subscription": {"ReplayAndFeedMeet", lateSubscribe},

		"messages are lost": {"MessagesArrive", func(n *mutantNode) {
			n.send = func(context.Context, adapter.NodeID, adapter.Message) error { return nil }
		}},
		"alone": {"NodesKnowEachOther", func(n *mutantNode) {
			n.nodes = func(context.Context) ([]adapter.Member, error) {
				return []adapter.Member{{ID: n.Node()}}, nil
			}
		}},
		"catching up for good": {"NodesKnowEachOther", func(n *mutantNode) {
			n.nodes = func(ctx context.Context) ([]adapter.Member, error) {
				members, err := n.Adapter.Nodes(ctx)
				for i := range members {
					members[i].CatchingUp = true
				}
				return members, err
			}
		}},
		"a new generation without a cause": {"NodesKnowEachOther", func(n *mutantNode) {
			var generation atomic.Uint64
			n.nodes = func(ctx context.Context) ([]adapter.Member, error) {
				members, err := n.Adapter.Nodes(ctx)
				for i := range members {
					members[i].Generation = generation.Add(1)
				}
				return members, err
			}
		}},
		"asleep when closed": {"CloseEndsCalls", func(n *mutantNode) {
			n.next = func(ctx context.Context) (adapter.Event, error) {
				e, err := n.Adapter.Next(ctx)
				if errors.Is(err, adapter.ErrClosed) {
					<-ctx.Done()
					err = ctx.Err()
				}
				return e, err
			}
		}},
		"deaf to contexts": {"ContextsEndCalls", func(n *mutantNode) {
			n.next = func(ctx context.Context) (adapter.Event, error) {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
				defer cancel()
				return n.Adapter.Next(ctx)
			}
		}},
	}
}

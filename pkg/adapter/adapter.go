// Package adapter defines the contract between the nodes of a cluster. An adapter puts events into
// one order, keeps the recent events of each room, delivers to every node the events of its
// subscribed rooms, and carries queries and answers.
//
// An [Adapter] moves bytes. It knows rooms, but not sockets. [Memory] is the implementation for
// nodes that share a process, and the reference for the contract; package adaptertest tests other
// implementations against it. [Compose] makes most of an implementation of a [Partition] or several.
package adapter

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A NodeID names one node of a cluster. No two live nodes share one.
type NodeID string

// A Member is a live node of the cluster, in its last known state.
type Member struct {
	ID NodeID
	// Generation changes when the node's feed has been interrupted: it catches up with stored
	// events that were published meanwhile, and has missed the others.
	Generation uint64
	// CatchingUp means that the feed is currently interrupted.
	CatchingUp bool
}

// Errors that callers may test for. Implementations wrap them with the cause and its location.
var (
	// ErrClosed means that the adapter was closed.
	ErrClosed = errors.New("adapter: closed")
	// ErrUnavailable means that the event may or may not have been published, or the answer did not
	// arrive in time. Nothing is delivered ahead of its order.
	ErrUnavailable = errors.New("adapter: unavailable")
	// ErrNotPublished means that the event was not published and will not be, for a temporary
	// reason: it could not be sent in time, or it was refused. The caller may retry.
	ErrNotPublished = errors.New("adapter: not published")
	// ErrTrimmed means that a room has lost, or may have lost, events that a replay requires.
	ErrTrimmed = errors.New("adapter: backlog trimmed")
	// ErrTooMany means that a replay has more events than the adapter reads for one.
	ErrTooMany = errors.New("adapter: too many events to replay")
	// ErrHistoryLost means that a cursor belongs to a history that no longer exists, or is proved
	// not to be part of the current one.
	ErrHistoryLost = errors.New("adapter: history lost")
	// ErrNoNode means that the addressed node is not in the cluster.
	ErrNoNode = errors.New("adapter: no such node")
	// ErrTooLarge means that an event exceeds [MaxRooms] or [MaxCopies]. Nothing was published.
	ErrTooLarge = errors.New("adapter: event too large")
	// ErrUndecodable means that this node cannot decode an event that a replay or a history
	// holds. [ErrNewerVersion] is wrapped as well if the reason is the wire version.
	ErrUndecodable = errors.New("adapter: undecodable event")
	// ErrNewerVersion means that a peer runs a newer wire version.
	ErrNewerVersion = errors.New("adapter: a peer runs a newer wire version")
	// ErrReused: another event was published with the same [Once.ID].
	ErrReused = errors.New("adapter: once id used for another event")
	// ErrIncomplete: an event with an [Once.ID] was published in some partitions and will not be
	// published in the others, because that is longer ago than [Once.Window].
	ErrIncomplete = errors.New("adapter: event published in part")
)

// Limits of one call of Publish. Each room of Target.To has a copy of the event in its backlog and
// in flight to the nodes, so an event costs its size times its rooms.
const (
	// MaxRooms is the maximum number of rooms in Target.To and Target.Except together. Two more are
	// allowed for rooms that a caller has not named: everyone, and the sender.
	MaxRooms = 10_000
	// MaxCopies is the maximum size of all copies of an event to several rooms, in
	// bytes: the size of its payload times the number of rooms in Target.To.
	MaxCopies = 32 << 20
	// MaxAttachments is the maximum number of attachments of an event: the same as in a packet of
	// the Socket.IO protocol.
	MaxAttachments = 10
)

// An Event is delivered to every subscribed node by one call of Publish.
//
// Events are shared: by the nodes of a process, by the backlog and by every reader of it. Once
// published, an event and its bytes must not be changed.
type Event struct {
	// Target is the event's receivers. All its rooms are in one namespace. On an event from Next,
	// Target.To holds at least those of its rooms that the node is subscribed to, and from Replay
	// at least those requested; it may hold duplicates. That is enough for [Event.For]. From
	// History it holds the one room, and Except and Earlier may be missing.
	Target rooms.Target
	// Stored events enter the backlog of each room of Target.To.
	Stored bool
	// Kind, Flags and Ask belong to the publisher and are returned unchanged: the event's type, its
	// delivery options, and the id of the query that its answers must name ("" requests none).
	Kind  uint8
	Flags uint8
	// copies is the number of backlogs of a Memory that share the payload and Target.Except once
	// the event is published; 0 means one.
	copies uint32

	Ask string
	// Data and Attachments are the payload.
	Data        []byte
	Attachments [][]byte
	// Once makes the event be published at most once. It is optional, and nil on events that the
	// adapter returns.
	Once *Once

	// The adapter sets the following fields; values from a publisher are ignored.

	// From is the node that published the event.
	From NodeID
	// Position is the event's place in the order.
	Position Position
	// Earlier lists the copies of the event in other partitions that were published before
	// this one. Each lists all its rooms, unlike Target.To. A member takes the first copy
	// that is for it, at that copy's position. It takes no copy behind one at which it was
	// in a room of Target.Except.
	Earlier []Copy
	// Cursor is, on an event from Next, the node's cursor after it, and on one
	// from Replay or History, the cursor that covers everything up to it. As a
	// string it is the offset that clients send back.
	Cursor Cursor
	// Omitted is the size of the payload, in bytes, if an event from Replay comes without
	// it, and otherwise 0.
	Omitted uint32
}

// OnceTTL is the time for which an [Once.ID] is kept, from the publication of its event on.
const OnceTTL = 10 * time.Minute

// A Once names an event. In one history and within [OnceTTL], at most one event is published with
// an ID, by any node, whatever happens to the nodes and their connections. A caller that does not
// know whether its event was published therefore publishes it again with the same Once.
type Once struct {
	ID [16]byte
	// Content distinguishes different events that have one ID by mistake.
	Content [8]byte
	// Untrusted means that a client chose the ID. Where an adapter bounds the number of IDs, such ones
	// have a limit of their own.
	Untrusted bool
	// Window is the time after the first copy of an event for which its copies in other partitions
	// are published if they are missing: at most the time for which members remember the rooms
	// that they have left. Otherwise such a member could take two copies. 0 means no limit.
	Window time.Duration
	// Until is set by [Partitions], with a copy that follows an older one: it is not published
	// after this time, in Unix milliseconds by the clock that issues the positions of its partition.
	// 0 means no limit.
	Until uint64
}

// A Place locates a stored event: its position in the backlog of a room.
type Place struct {
	Room rooms.Room
	At   Position
}

// A Page bounds the result of History.
type Page struct {
	Before Cursor // only events before it; zero for the newest
	UpTo   Cursor // only events that it covers; zero for the newest
	After  Cursor // only events that it does not cover; zero for all that are kept
	Events int    // the maximum number of events
	// Bytes is the maximum total size of the events' payloads; 0 means no maximum. A single event
	// may be larger, so that each page but the last has at least one.
	Bytes int
}

// A Receipt is the result of publishing an event.
type Receipt struct {
	// Cursor covers the event: its string is the event's offset.
	Cursor Cursor
	// Receivers counts the nodes that the event was handed to. It is a hint and may be wrong: a
	// broken connection may count and a reconnecting node may not.
	Receivers int
	// NewRooms counts the rooms that have no subscriber and whose backlog begins with the
	// event. It is a hint as well.
	NewRooms int
	// Copies are the event's positions if it is in several partitions; nil if it is in one, at
	// Cursor.At.
	Copies []Copy
	// Repeated means that nothing was published, because an event with this Once.ID had been: the
	// rest of the receipt is that event's, without Receivers and NewRooms.
	Repeated bool
	// Age is how long ago a repeated event was published, by the clock of its partition. If it has
	// copies in several, [Partitions] leave it 0.
	Age time.Duration
}

// A Message is sent from one node to another, outside the order of events.
type Message struct {
	From NodeID // set by the adapter
	Kind uint8  // the sender's, as Event.Kind
	ID   string // the subject of the message: a query's id
	Data []byte
}

// A LostError is returned by Next if events may be missing from the feed and cannot be recovered.
// Every member of Rooms, or of any subscribed room if Rooms is empty, may have missed events, and
// must be cut before it gets another one. The feed continues with the next call.
type LostError struct {
	Reason string
	Rooms  []rooms.Room
	// Cursor is the node's cursor from which the feed continues, possibly in a new history.
	Cursor Cursor
}

func (e *LostError) Error() string { return "adapter: events lost: " + e.Reason }

// A Fallible adapter is one whose history can be lost in part, as by a failover, without any node
// noticing.
type Fallible interface {
	// Condemn begins a new history if the current one is proved to lack seen. The caller must know
	// that seen was issued in the current history. All nodes are notified as for any lost history.
	Condemn(ctx context.Context, seen Cursor) error
}

// A ProgressReporter is an adapter that reports the progress of its feed also if no event is for
// the node, so that waits for a position end without one.
type ProgressReporter interface {
	// OnProgress makes Next call f with the node's cursor, before Next returns or while it
	// waits. OnProgress must be called before the first Next. f must not call the adapter.
	OnProgress(f func(Cursor))
}

// A CursorExpirer is an adapter whose backlogs expire.
type CursorExpirer interface {
	// CursorTTL returns the age of a cursor up to which Replay can read after it: an event that is
	// younger is in its backlogs, unless these have been trimmed.
	CursorTTL() time.Duration
}

// A LossReporter is an adapter that may lose messages of Send without an error to their sender.
type LossReporter interface {
	// OnMessagesLost makes the adapter call f whenever messages to this node may have been lost. Messages
	// sent after the call of f are not affected. f must not block.
	OnMessagesLost(f func())
}

// A Refresher is an adapter whose Nodes may be out of date.
type Refresher interface {
	// FreshNodes returns what Nodes returns, as of a moment after the call. It may take a round
	// trip, which concurrent calls share.
	FreshNodes(ctx context.Context) ([]Member, error)
}

// FreshNodes returns a's nodes as of a moment after the call if a is a [Refresher], and
// otherwise the result of Nodes.
func FreshNodes(ctx context.Context, a Adapter) ([]Member, error) {
	if r, ok := a.(Refresher); ok {
		return r.FreshNodes(ctx)
	}
	return a.Nodes(ctx)
}

// An Adapter connects one node to the others. Its methods are safe for concurrent use, except Next
// and Receive, each of which has one caller at a time. Every method that takes a context returns
// when that ends, with its error wrapped. After Close all methods that can return ErrClosed do.
type Adapter interface {
	// Node returns the node's id.
	Node() NodeID

	// Nodes returns the live nodes, including this one, sorted by id. It is called with every
	// query, so it must be cheap and may be some seconds old; see [Refresher].
	Nodes(ctx context.Context) ([]Member, error)

	// Publish gives e the next position, stores it if e.Stored is set, and delivers it once to
	// every node that is subscribed to a room of e.Target.To, including this one. When it returns
	// without error the event is in the backlogs. Events published by one goroutine, one after
	// another, keep their order. After an error that wraps ErrUnavailable the event may or may not
	// have been published; after any other it was not: examples are ErrTooLarge, and
	// ErrNotPublished, after which a retry may succeed. An event with an empty Target.To is not
	// published, and the receipt is empty.
	//
	// An event with e.Once whose ID belongs to an event that was published before is not published
	// again. If the Content is the same the receipt is that of the former event. Otherwise the error
	// wraps ErrReused. In each partition the ID is stored and lost together with the event. If an
	// event with several copies was published in part, the missing ones are published, with the
	// positions of the former ones. If it is too late for this, the error wraps ErrIncomplete and
	// ErrUnavailable. So does ErrReused wrap ErrUnavailable if another copy was published.
	Publish(ctx context.Context, e Event) (Receipt, error)

	// Subscribe subscribes the node to rooms, and returns once no later event can be missed. The
	// cursor is the join position: it covers every event that a member joining with this call must
	// not receive. It covers everything published before the call, and nothing published after its
	// return. Subscriptions are counted: each room needs one Unsubscribe for every Subscribe. On
	// error no room is subscribed.
	Subscribe(ctx context.Context, rooms ...rooms.Room) (Cursor, error)

	// Unsubscribe undoes one Subscribe of each room. It does not wait. The node may continue to
	// receive a room's events for a while.
	Unsubscribe(rooms ...rooms.Room)

	// Next returns the node's next event, in the order of positions and without duplicates. It
	// blocks until there is one. Within seconds its Cursor also covers the partitions in which the
	// node is not subscribed. Neither a *LostError nor the end of ctx ends the feed: the next call
	// continues where this one stopped. Any other error does.
	Next(ctx context.Context) (Event, error)

	// Head returns the newest position, the end for a replay: events published after the call have
	// later positions. If one of seen is proved not to belong to the current history, the error
	// wraps ErrHistoryLost.
	Head(ctx context.Context, seen ...Cursor) (Cursor, error)

	// Replay yields the stored events of some rooms, each room's after its own cursor, all up to
	// and including upTo, merged in the order of positions, each event once. An error comes first,
	// before any event: ErrTrimmed if more events than the backlog limit are missing in a room, or
	// some after its cursor may have expired, or if one of these cannot be ruled out; ErrTooMany if
	// there are more events than Replay reads; ErrUndecodable if an event cannot be decoded;
	// ErrHistoryLost if upTo is not of the current history, or a cursor, such as the zero one, is
	// not of the same history. The rooms are read when the iteration starts, all before the first
	// event, and the cost depends only on the requested rooms and events.
	//
	// payload is the maximum size of the payloads that are held together, in bytes; 0 means no
	// maximum. Events beyond it come without their payload, see Event.Omitted; Fetch can read it
	// later.
	Replay(ctx context.Context, after map[rooms.Room]Cursor, upTo Cursor, payload int) iter.Seq2[Event, error]

	// Fetch returns the stored events at places, in this order, from the history of the cursor. Of
	// the fields that the adapter sets, the events have From and Position; To holds the place's
	// room, and Except may be missing. Fetch returns ErrTrimmed if a backlog no longer holds one
	// of the events, ErrHistoryLost if the history is not the current one, and ErrUndecodable if
	// an event cannot be decoded. All events are in memory, so the caller should bound them by the
	// sizes that Replay has reported.
	Fetch(ctx context.Context, history Cursor, places []Place) ([]Event, error)

	// History returns a page of a room's newest stored events, oldest first, and whether older ones
	// are kept. A page up to a join position holds the events that precede those that the member gets.
	// History returns ErrHistoryLost if a cursor of the page is of another history, and ErrUndecodable
	// if one of the events cannot be decoded. It reads little more than it returns.
	//
	// With page.After, more says whether older events after it are kept. If it returns all that are, and
	// some may be lost nevertheless, as for a replay, it returns them with an error that wraps
	// ErrTrimmed.
	History(ctx context.Context, room rooms.Room, page Page) (events []Event, more bool, err error)

	// Send sends m to one node, which may be this one. It does not wait for the node to receive it,
	// and nil does not guarantee delivery: a receiver that is full or is leaving the cluster loses
	// the message. If the sender detects that, the error wraps ErrUnavailable or ErrNoNode.
	// Messages of one sender keep their order.
	Send(ctx context.Context, to NodeID, m Message) error

	// Receive returns the next message sent to this node. It blocks until there is one.
	Receive(ctx context.Context) (Message, error)

	// Close leaves the cluster, ends calls in progress, releases the adapter's resources, and then
	// returns. A second call has no effect.
	Close() error
}

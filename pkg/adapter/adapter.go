// Package adapter is the contract between the nodes of a cluster: it puts
// events into one order, keeps each room's recent ones, hands every node the
// events of the rooms that it subscribed to, and carries questions and answers.
//
// An [Adapter] moves bytes. It knows rooms, never sockets. [Memory] is the
// implementation for nodes that share a process, and the meaning of the
// contract; package adaptertest holds every other implementation to it.
package adapter

import (
	"context"
	"errors"
	"iter"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A NodeID names one node of a cluster. No two live nodes share one.
type NodeID string

// A Member is a live node of the cluster, as it was when it was last heard of.
type Member struct {
	ID NodeID
	// Generation changes when the node's feed has been interrupted: what was
	// published meanwhile it catches up with, and what was not stored it has missed.
	Generation uint64
	// CatchingUp: the feed is interrupted now.
	CatchingUp bool
}

// Errors that callers decide by. Implementations wrap them with what happened
// and where.
var (
	// ErrClosed: the adapter was closed.
	ErrClosed = errors.New("adapter: closed")
	// ErrUnavailable: the event may or may not have been published, or the
	// answer could not be had in time. Nothing is delivered ahead of its order.
	ErrUnavailable = errors.New("adapter: unavailable")
	// ErrNotPublished: the event was not published and will not be, for a cause
	// that may pass: it could not be sent in time, or it was refused. It can be
	// published again.
	ErrNotPublished = errors.New("adapter: not published")
	// ErrTrimmed: a room has lost, or may have lost, events that a replay asks for.
	ErrTrimmed = errors.New("adapter: backlog trimmed")
	// ErrHistoryLost: a cursor belongs to a history that is gone, or is proved
	// not to be part of the current one.
	ErrHistoryLost = errors.New("adapter: history lost")
	// ErrNoNode: the addressed node is not in the cluster.
	ErrNoNode = errors.New("adapter: no such node")
	// ErrTooLarge: an event exceeds [MaxRooms] or [MaxCopies]. Nothing was published.
	ErrTooLarge = errors.New("adapter: event too large")
	// ErrUndecodable: this node cannot decode an event that a replay or a history
	// holds. [ErrNewerVersion] is wrapped as well if the reason is the wire version.
	ErrUndecodable = errors.New("adapter: undecodable event")
	// ErrNewerVersion: a peer runs a newer wire version.
	ErrNewerVersion = errors.New("adapter: a peer runs a newer wire version")
)

// Limits of one call of Publish. Each room of Target.To has a copy of the event in
// its backlog and on its way to the nodes, so an event costs its size times its
// rooms.
const (
	// MaxRooms is the maximum number of rooms in Target.To and Target.Except together. Two
	// more are let pass, for those that a caller has not named: everyone, and the sender.
	MaxRooms = 10_000
	// MaxCopies is the maximum size of all copies of an event to several rooms, in
	// bytes: the size of its payload times the number of rooms in Target.To.
	MaxCopies = 32 << 20
	// MaxAttachments is the maximum number of attachments of an event: as many as a packet
	// of the Socket.IO protocol has.
	MaxAttachments = 10
)

// An Event is what one call of Publish hands to every subscribed node.
//
// Events are shared: by the nodes of a process, by the backlog and by every
// reader of it. Nobody changes one, nor the bytes that it holds, once it has
// been published.
type Event struct {
	// Target says for whom the event is. All its rooms lie in one namespace. On an
	// event from Next, Target.To holds only those of the rooms that the node is
	// subscribed to, from Replay those requested; it may hold more, and
	// repeats. That is enough for [Event.For]. From History it holds the one room, and
	// Except and Earlier may be missing.
	Target rooms.Target
	// Stored events enter the backlog of each room of Target.To.
	Stored bool
	// Kind, Flags and Ask belong to the publisher and come back as they were:
	// what the event is, how it wants to be delivered, and the id of the
	// question that its answers must name ("" asks for none).
	Kind  uint8
	Flags uint8
	// copies counts the backlogs of a Memory that share the payload and Target.Except when it
	// is published; 0 means one.
	copies uint32
	Ask    string
	// Data and Attachments are the payload.
	Data        []byte
	Attachments [][]byte

	// What follows is set by the adapter; what a publisher puts there is ignored.

	// From is the node that published the event.
	From NodeID
	// Position is the event's place in the order.
	Position Position
	// Earlier lists the copies of the event in other partitions that were published
	// before this one. Unlike Target.To each lists all its rooms. A member takes the
	// first copy that is for it, at that copy's position.
	Earlier []Copy
	// Cursor is, on an event from Next, the node's cursor after it, and on one
	// from Replay or History, the cursor that covers everything up to it. As a
	// string it is the offset that clients send back.
	Cursor Cursor
	// Omitted is the size of the payload on an event from Replay that comes without it,
	// and otherwise 0.
	Omitted uint32
}

// A Place is where a stored event is: its position in the backlog of a room.
type Place struct {
	Room rooms.Room
	At   Position
}

// A Page bounds what History returns.
type Page struct {
	Before Cursor // only events before it; the zero Cursor: the newest
	Events int    // the maximum number of events
	// Bytes is the maximum size of the events' payloads together; 0 means no maximum. A
	// single event may be larger, so that each page but the last has at least one.
	Bytes int
}

// A Receipt tells what became of a published event.
type Receipt struct {
	// Cursor covers the event: its string is the event's offset.
	Cursor Cursor
	// Receivers counts the nodes that the event was handed to. It is a hint, not
	// the truth: a broken connection may count and a reconnecting node may not.
	Receivers int
	// NewRooms counts the rooms that have no subscriber and whose backlog begins with the
	// event. It is a hint as well.
	NewRooms int
	// Copies are where the event lies in several partitions; nil if it lies in one, at
	// Cursor.At.
	Copies []Copy
}

// A Message goes from one node to another, past the order of events.
type Message struct {
	From NodeID // set by the adapter
	Kind uint8  // the sender's, as Event.Kind
	ID   string // what the message is about: a question's id
	Data []byte
}

// A LostError is what Next returns where events may be missing from the feed
// and cannot be repaired: every member of Rooms, or of any room that was subscribed
// if Rooms is empty, may have missed something, and must be notified by being cut
// before it gets another event. The feed goes on with the next call.
type LostError struct {
	Reason string
	Rooms  []rooms.Room
	// Cursor is the node's cursor from which the feed goes on, perhaps in a new history.
	Cursor Cursor
}

func (e *LostError) Error() string { return "adapter: events lost: " + e.Reason }

// A Fallible adapter keeps its history where a part of it can get lost, as by a
// failover, without any node having noticed.
type Fallible interface {
	// Condemn begins a new history if the current one is proved to lack seen, which
	// the caller knows to have been given out in it. All nodes hear of that as of any
	// lost history.
	Condemn(ctx context.Context, seen Cursor) error
}

// A ProgressReporter is an adapter that tells how far its feed has come also where no event
// is for the node, so that what waits for a position does not wait until there is one.
type ProgressReporter interface {
	// OnProgress has Next call f with the node's cursor, before it returns or while it
	// waits. It is called before the first Next. f must not call the adapter.
	OnProgress(f func(Cursor))
}

// A Refresher is an adapter whose Nodes may be out of date.
type Refresher interface {
	// FreshNodes is Nodes as of a moment after the call. It may take a round trip,
	// which concurrent calls share.
	FreshNodes(ctx context.Context) ([]Member, error)
}

// FreshNodes returns a's nodes as of a moment after the call, if a is a [Refresher],
// and otherwise what Nodes returns.
func FreshNodes(ctx context.Context, a Adapter) ([]Member, error) {
	if r, ok := a.(Refresher); ok {
		return r.FreshNodes(ctx)
	}
	return a.Nodes(ctx)
}

// An Adapter connects one node to the others. Its methods may be called by any
// number of goroutines at once, except Next and Receive, each of which has one
// caller at a time. Every method that takes a context returns when that ends,
// with its error wrapped. After Close all that can return ErrClosed.
type Adapter interface {
	// Node returns the node's id.
	Node() NodeID

	// Nodes returns the live nodes, this one included, sorted by id. It is called
	// with every question, so it is cheap and may be some seconds old; see [Refresher].
	Nodes(ctx context.Context) ([]Member, error)

	// Publish gives e the next position, stores it if it is to be stored, and
	// hands it to every node that is subscribed to a room of e.Target.To, this
	// one included, once each. When it returns without error the event is in the
	// backlogs. Events published by one goroutine, one after another, keep their
	// order. An error that wraps ErrUnavailable leaves open whether it was
	// published; any other says that it was not: ErrTooLarge is one, and ErrNotPublished
	// says that the same call may succeed later. An event with an empty Target.To is not
	// published, and the receipt is empty.
	Publish(ctx context.Context, e Event) (Receipt, error)

	// Subscribe makes the node hear rooms, and returns once no later event can
	// be missed. The cursor covers every event that a member joining with this
	// call shall not get: the join position. It covers all that was published
	// before the call, and nothing that is published after its return. Subscriptions
	// count: each room needs one Unsubscribe for every time that it was
	// subscribed. On error none is.
	Subscribe(ctx context.Context, rooms ...rooms.Room) (Cursor, error)

	// Unsubscribe undoes one Subscribe of each room. It does not wait. The node
	// may go on hearing a room for a while.
	Unsubscribe(rooms ...rooms.Room)

	// Next returns the node's next event, in the order of positions and without
	// repeats. It blocks until there is one. Its Cursor covers soon, within seconds,
	// what has come to the partitions in which the node hears nothing, too. Neither a
	// *LostError nor the end of ctx ends the feed: the next call goes on where this
	// one stood. Any other error does.
	Next(ctx context.Context) (Event, error)

	// Head returns the newest position: the end for a replay, which no event
	// published after the call is at or below. If one of seen is proved not to
	// belong to the current history, the error wraps ErrHistoryLost.
	Head(ctx context.Context, seen ...Cursor) (Cursor, error)

	// Replay yields the stored events of some rooms, each room's after its own
	// cursor, all up to and including upTo, merged in the order of positions,
	// each event once. An error comes first, before any event: ErrTrimmed where
	// more than the backlog limit are missing in a room, or where that can't be
	// ruled out; ErrUndecodable where an event cannot be decoded; ErrHistoryLost
	// where upTo is not of the current history, or a cursor, such as the zero one,
	// not of the same. The rooms are read when the
	// iteration starts, all before the first event, and its cost depends on the
	// rooms and events asked for only.
	//
	// payload is the maximum size of the payloads that are held together, in bytes; 0
	// means no maximum. Beyond it events come without their payload, see Event.Omitted,
	// for Fetch to read it later.
	Replay(ctx context.Context, after map[rooms.Room]Cursor, upTo Cursor, payload int) iter.Seq2[Event, error]

	// Fetch returns the stored events at some places, in this order, of the history to
	// which a cursor belongs. Of what the adapter sets, events have From and Position; the
	// list To holds the place's room, and Except may be missing. ErrTrimmed if a backlog does
	// not hold one of them any more, ErrHistoryLost if the history is not the current one,
	// ErrUndecodable if one of them cannot be decoded. What it holds in memory is what it
	// returns, so the caller bounds it by the sizes that Replay has told.
	Fetch(ctx context.Context, history Cursor, places []Place) ([]Event, error)

	// History returns a page of a room's newest stored events, oldest first, and
	// whether older ones are kept. ErrHistoryLost if page.Before is of another
	// history, ErrUndecodable if one of the events cannot be decoded. It reads little
	// more than it returns.
	History(ctx context.Context, room rooms.Room, page Page) (events []Event, more bool, err error)

	// Send hands m to one node, which may be this one. It does not wait for the
	// node to receive it, and nil does not promise that it will: a receiver that is
	// full, or leaving, loses the message. Where the sender gets to know, the error
	// wraps ErrUnavailable or ErrNoNode. Messages of one sender keep their order.
	Send(ctx context.Context, to NodeID, m Message) error

	// Receive returns the next message sent to this node.
	Receive(ctx context.Context) (Message, error)

	// Close leaves the cluster and releases what the adapter holds. It returns
	// when that is done, and ends calls in progress. A second call does nothing.
	Close() error
}

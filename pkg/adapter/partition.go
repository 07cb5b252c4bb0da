package adapter

import (
	"context"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A Partition is one ordered log with one clock, as one node sees it: some rooms, their backlogs,
// and the node's subscriptions to them. [Compose] makes most of an [Adapter] of one or several.
//
// Its methods are those of an Adapter, with these differences. All rooms that they get are in the
// partition. Cursors have the epoch of the partition's own history and one position, At. They may be
// called concurrently, and return ErrClosed once the adapter is closed.
type Partition interface {
	// Seen returns a position that the node knows to have been issued, without a round trip unless
	// the node knows none yet.
	Seen(ctx context.Context) (Cursor, error)

	// Publish publishes e, which has From, Earlier, and at least one room, each once. If e.Once is
	// set it checks and stores the ID in one step with the publication. If the ID is new and
	// e.Once.Until is over it returns ErrIncomplete alone, and a receipt whose position says when that
	// was found, by the partition's clock.
	Publish(ctx context.Context, e Event) (Receipt, error)

	Subscribe(ctx context.Context, rooms ...rooms.Room) (Cursor, error)
	Unsubscribe(rooms ...rooms.Room)

	// Head returns the newest position, and an error that wraps ErrHistoryLost if one of seen is
	// proved not to be of the current history.
	Head(ctx context.Context, seen ...Position) (Cursor, error)

	// Condemn begins a new history if the current one is proved to lack seen; see [Fallible].
	Condemn(ctx context.Context, seen Position) error

	// Missed returns the stored events of some rooms, room by room: those after a position each and
	// up to upTo. Its errors are those of Adapter.Replay. The events may be shared, and are not
	// changed. Payloads beyond the maximum may be omitted.
	Missed(ctx context.Context, after []Place, upTo Cursor, payload int) ([][]*Event, error)

	// Fetch and History return events that may be shared, too, and need no Cursor.
	Fetch(ctx context.Context, history Cursor, places []Place) ([]*Event, error)
	History(ctx context.Context, room rooms.Room, page Page) (events []*Event, more bool, err error)
}

// An Item is one element of a partition's feed. It has an event, or a loss, or neither: then the
// feed has reached the position At without an event for the node.
type Item struct {
	Event *Event     // must not be changed, because nodes and backlogs may share it
	Lost  *LostError // events before At may be missing; its Cursor is zero
	Epoch string     // the history that At belongs to; set only with Lost
	At    Position   // the position that the feed has reached; not set with Event, which has its own
}

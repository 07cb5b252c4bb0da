package socketio

import (
	"crypto/sha256"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A Once names an event or a command, for [Broadcast.Keyed].
type Once struct {
	// ID names it in the whole cluster, in all namespaces.
	ID string
	// Content distinguishes different events with one ID: for example, their text.
	Content string
	// Untrusted means that a client chose the ID. A server without a shared store keeps a limited
	// number of IDs: untrusted ones cannot use up those of the program.
	Untrusted bool
	// Repeated is set by a call that returns no error: nothing was published, because the event had
	// been.
	Repeated bool
}

// Keyed makes an event or a command be published at most once: a call with the ID of one that was
// published in the last ten minutes, by any node, publishes nothing and returns the first one's result.
// So a caller that gets an error that wraps [adapter.ErrUnavailable], or was killed, can repeat the call
// until it succeeds. If the Content differs the error wraps [ErrReused]. The event and its ID are lost
// together if the store loses a part of its history.
//
// With several partitions a repeated call also completes an event that was published in some of them.
// If the first copy is older than Options.RecoveryWindow and Engine.PingInterval together, the error
// wraps [ErrIncomplete]: a member that has left a room since could get the event twice.
//
// Keyed has no effect with Local and on calls that wait for answers. A Once belongs to one call at a
// time. nil restores the default.
func (b Broadcast) Keyed(o *Once) Broadcast {
	b.once = o
	return b
}

// key returns the adapter's form of o, for a server whose members remember for a time which rooms they
// have left.
func (o *Once) key(window time.Duration) *adapter.Once {
	if o == nil {
		return nil
	}
	id, content := sha256.Sum256([]byte(o.ID)), sha256.Sum256([]byte(o.Content))
	return &adapter.Once{ID: [16]byte(id[:]), Content: [8]byte(content[:]), Untrusted: o.Untrusted, Window: window}
}

// completion is the time after which an event is not completed: less than memory, because the nodes
// receive the last copy later than the first one, and by another clock.
func (o *Options) completion() time.Duration {
	return max(0, o.RecoveryWindow) + o.Engine.PingInterval
}

package socketio

import (
	"errors"
	"fmt"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// Reasons why a session was not recovered: labels of metrics and logs.
const (
	refusedUnknown = "unknown_session"  // expired, ended, or never existed
	refusedUser    = "other_user"       // of another user or namespace
	refusedEpoch   = "other_history"    // begun before history was lost
	refusedOffset  = "malformed_offset" // not an offset of this cluster: the client's position is unknown
	refusedHistory = "lost_history"     // the client has seen events that no longer exist
	refusedTrimmed = "trimmed"          // a room has lost what the client missed
	refusedCoding  = "undecodable"      // this node cannot decode what the client missed
	refusedLimit   = "too_many_events"
	refusedJoin    = "unfinished_join" // the connection ended amid the events that a command's join gave the client
	refusedRooms   = "too_many_rooms"  // joined by the middlewares and left, again and again
	refusedRemoved = "removed"         // disconnected by the server while its client was disconnected
	recoveredWell  = "recovered"
)

// A refusal says that a session is not to be recovered: the client gets a new one, and learns that
// from its new ids. Any other error leaves it open.
type refusal struct {
	reason string
	err    error
}

func (r *refusal) Error() string { return fmt.Sprintf("not recovered: %s: %v", r.reason, r.err) }

func (r *refusal) Unwrap() error { return r.err }

// refuseLost turns errors that prove missing events into a refusal.
func refuseLost(err error) error {
	switch {
	case errors.Is(err, adapter.ErrTrimmed):
		return &refusal{refusedTrimmed, err}
	case errors.Is(err, adapter.ErrTooMany):
		return &refusal{refusedLimit, err}
	case errors.Is(err, adapter.ErrUndecodable):
		return &refusal{refusedCoding, err}
	case errors.Is(err, adapter.ErrHistoryLost):
		return &refusal{refusedHistory, err}
	}
	return err
}

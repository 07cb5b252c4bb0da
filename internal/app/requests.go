package app

import (
	"context"
	"errors"

	"github.com/rejoin-io/rejoin/internal/limit"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/session"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// membersTimeout bounds the wait for a silent node, so that the other nodes' answers are still
// useful.
const membersTimeout = Timeout / 2

// Limits of history.
const (
	maxHistory     = 200 // events per call
	defaultHistory = 50
)

// requests are the events that clients may send, besides echo.
var requests = map[string]func(context.Context, *request) (any, error){
	"join":  join,
	"leave": leave,
	"to": func(ctx context.Context, r *request) (any, error) {
		rooms, err := roomsArg(r, permit("to", r.client.Can.MaySend))
		if err != nil {
			return nil, err
		}
		return emitTo(ctx, r, len(rooms), outside(r, rooms), r.Socket().To(rooms...))
	},
	"broadcast": func(ctx context.Context, r *request) (any, error) {
		if !r.client.Can.Broadcast {
			return nil, fail(forbidden, "the token does not permit broadcast")
		}
		return emit(ctx, r, 0, r.Socket().Broadcast(), limit.Copies{})
	},
	"all": func(ctx context.Context, r *request) (any, error) {
		if !r.client.Can.All {
			return nil, fail(forbidden, "the token does not permit all")
		}
		return emit(ctx, r, 0, r.Socket().Namespace().Everyone(), limit.Copies{})
	},
	"self": func(ctx context.Context, r *request) (any, error) {
		return emit(ctx, r, 0, r.Socket().Self(), limit.Copies{})
	},
	"private": func(ctx context.Context, r *request) (any, error) {
		if !r.client.Can.Private {
			return nil, fail(forbidden, "the token does not permit private")
		}
		id, err := stringArg(r, 0, "a socket id")
		if err != nil {
			return nil, err
		}
		if len(id) > maxRoomName {
			return nil, fail(badRequest, "socket ids have at most %d bytes", maxRoomName)
		}
		return emitTo(ctx, r, 1, 1, r.Socket().Namespace().ToSocket(id))
	},
	"history": read(history),
	"members": read(members),
	"token":   renew,
}

// emitTo sends the event in the arguments from the second one on to rooms that the first one names.
// newRooms is the number of them that the sender is not in.
func emitTo(ctx context.Context, r *request, rooms, newRooms int, b socketio.Broadcast) (any, error) {
	copies, err := r.limits.Copy(rooms, r.Size()-len(r.Raw(0)), newRooms)
	if many := (*limit.TooManyCopiesError)(nil); errors.As(err, &many) {
		return nil, fail(tooMany, "%v", err)
	}
	if err != nil {
		return nil, fail(rateLimited, "%v; this one was dropped", err)
	}
	return emit(ctx, r, 1, b, copies)
}

// emit sends the event in the arguments from i on: its name and its own arguments.
func emit(ctx context.Context, r *request, i int, b socketio.Broadcast, copies limit.Copies) (any, error) {
	newRooms, unknown := 0, false
	defer func() {
		if !unknown { // otherwise the rooms may exist, and the estimate stays charged
			copies.Done(newRooms)
		}
	}()
	name, err := stringArg(r, i, "an event name")
	if err != nil {
		return nil, err
	}
	if packet.Reserved(name) {
		return nil, fail(reservedEvent, "%q is reserved for the client", name)
	}
	placed, err := r.place(ctx, b, name, r.Rest(i+1))
	if err != nil {
		unknown = errors.Is(err, adapter.ErrUnavailable)
		return nil, err
	}
	newRooms = placed.NewRooms
	return struct {
		OK       bool   `json:"ok"`
		Offset   string `json:"offset"`
		Repeated bool   `json:"repeated,omitempty"`
	}{true, placed.Offset, r.once != nil && r.once.Repeated}, nil
}

// outside returns the number of rooms that the sender is not in.
func outside(r *request, rooms []string) (n int) {
	for _, room := range rooms {
		if !r.Socket().InRoom(room) {
			n++
		}
	}
	return n
}

// listedRooms is the maximum number of rooms in the acks of join and leave. With 1,000 long names
// such a list has 190 kB, for a request of 20 bytes.
const listedRooms = 200

type roomsReply struct {
	OK    bool      `json:"ok"`
	Rooms *[]string `json:"rooms,omitempty"` // nil: there are too many
	Count int       `json:"count,omitempty"` // instead of Rooms
}

// change joins or leaves rooms when the rate allows it. It returns the socket's rooms for the ack, if
// one is requested.
func (r *request) change(ctx context.Context, rooms []string, f func(context.Context, ...string) error) (any, error) {
	if err := r.limits.Write(ctx); err != nil {
		if exceeded := (*limit.ExceededError)(nil); errors.As(err, &exceeded) {
			return nil, fail(rateLimited, "%v; this call was dropped", err)
		}
		return nil, err
	}
	if err := f(session.OnWrite(ctx, r.limits.Wrote), rooms...); err != nil {
		return nil, err
	}
	return r.rooms(), nil
}

// rooms returns the socket's rooms for the ack.
func (r *request) rooms() roomsReply {
	if n := r.Socket().RoomCount(); n > listedRooms || !r.HasAck() {
		return roomsReply{OK: true, Count: n}
	}
	list := append([]string{}, r.Socket().Rooms()...) // never nil, so that clients get an array
	return roomsReply{OK: true, Rooms: &list}
}

func leave(ctx context.Context, r *request) (any, error) {
	rooms, err := roomsArg(r, own)
	if err != nil {
		return nil, err
	}
	return r.change(ctx, rooms, r.Socket().Leave)
}

func history(ctx context.Context, r *request) (any, error) {
	room, err := memberRoom(r, "history", r.client.Can.MayReadHistory)
	if err != nil {
		return nil, err
	}
	var query struct {
		Limit  *int   `json:"limit"`
		Before string `json:"before"`
		Until  string `json:"until"`
	}
	if err := r.Arg(1, &query); err != nil {
		return nil, fail(badRequest, "the second argument must be an object with the fields limit, before and until")
	}
	limit := defaultHistory
	if query.Limit != nil {
		limit = *query.Limit
	}
	if limit < 1 || limit > maxHistory {
		return nil, fail(badRequest, "limit must be 1 to %d", maxHistory)
	}
	counted := adapter.OnRead(ctx, func(bytes int) { r.read += bytes })
	past, more, err := r.Socket().Namespace().HistoryUntil(counted, room, query.Until, query.Before, limit)
	if errors.Is(err, socketio.ErrOffset) {
		return nil, fail(badRequest, "before and until must be offsets")
	}
	if errors.Is(err, adapter.ErrHistoryLost) {
		return nil, fail(badRequest, "before or until belongs to a history that no longer exists")
	}
	if err != nil {
		return nil, err
	}
	if n := fitting(past); n < len(past) {
		past, more = past[len(past)-n:], true
	}
	const levels = 2 // the ack's object, and the array of events
	events := make([]socketio.Past, len(past))
	for i, p := range past {
		events[i] = p.Nested(levels)
	}
	return map[string]any{"ok": true, "events": events, "more": more}, nil
}

// fitting returns how many of the last events together have no more attachments than a packet may
// have. Each event arrived in one packet, so it is at least one.
func fitting(past []socketio.Past) (n int) {
	attachments := 0
	for ; n < len(past); n++ {
		attachments += past[len(past)-1-n].Attachments()
		if attachments > packet.MaxAttachments && n > 0 {
			break
		}
	}
	return n
}

// Costs of a read of members in addition to the members listed: the query, which is sent to
// Redis and back, and the work for each member that is only counted.
const (
	questionBytes = 1 << 10
	countedBytes  = 16
)

func members(ctx context.Context, r *request) (any, error) {
	room, err := memberRoom(r, "members", r.client.Can.MayListMembers)
	if err != nil {
		return nil, err
	}
	var query struct {
		After string `json:"after"`
	}
	if err := r.Arg(1, &query); err != nil {
		return nil, fail(badRequest, "the second argument must be an object with the field after")
	}
	if len(query.After) > maxRoomName {
		return nil, fail(badRequest, "socket ids have at most %d bytes", maxRoomName)
	}
	all, err := r.Socket().Namespace().To(room).Timeout(membersTimeout).Members(ctx, query.After)
	silent := (*socketio.UnansweredError)(nil)
	if err != nil && !errors.As(err, &silent) {
		return nil, err
	}
	r.read += questionBytes + countedBytes*all.Count
	r.read += 2 * all.Answered
	return struct {
		OK      bool              `json:"ok"`
		Members []socketio.Member `json:"members"`
		Partial bool              `json:"partial"`
		More    bool              `json:"more"`
		Count   int               `json:"count"`
	}{true, append([]socketio.Member{}, all.Page...), silent != nil, all.More, all.Count}, nil
}

// Package app is the built-in application: what clients can do on a node without
// any server code. They join rooms, send events to rooms, to everyone or to one
// another, and read a room's history and members. docs/protocol.md lists it.
package app

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// Timeout bounds what one event may take, however the cluster does.
const Timeout = 10 * time.Second

// membersTimeout is how long a silent node is waited for: what the others say is
// still of use then.
const membersTimeout = Timeout / 2

// Limits of the requests.
const (
	maxHistory     = 200 // events a call
	defaultHistory = 50
	maxRooms       = 1000 // rooms named in one event
	maxRoomName    = 200  // bytes
)

// An Allowance decides whether a user's socket may send one more event of so many
// bytes. The error says why not.
type Allowance func(user, socket string, bytes int) error

// Register serves the application to the clients of a namespace. An event that is
// not allowed is dropped.
func Register(n *socketio.Namespace, allow Allowance) {
	n.OnAny(func(ctx context.Context, e *socketio.Event) error {
		if err := allow(e.Socket().User(), e.Socket().ID(), e.Size()); err != nil {
			return answer(e, failure(ctx, fail(rateLimited, "%v; this one was dropped", err)))
		}
		if e.Name == "echo" {
			return answer(e, e.Rest(0)...) // waits for nothing, so it needs no deadline
		}
		handle, known := requests[e.Name]
		if !known {
			return answer(e, failure(ctx, fail(unknownEvent, "there is no event %q; see the protocol's table", e.Name)))
		}
		ctx, cancel := context.WithTimeout(ctx, Timeout)
		defer cancel()
		reply, err := handle(ctx, e)
		if err != nil {
			return answer(e, failure(ctx, err))
		}
		return answer(e, reply)
	})
}

// answer acks if an ack is asked for.
func answer(e *socketio.Event, args ...any) error {
	if !e.HasAck() {
		return nil
	}
	if err := e.Ack(args...); err != nil && !errors.Is(err, socketio.ErrDisconnected) {
		return err
	}
	return nil
}

// requests are the events that clients may send, beside echo.
var requests = map[string]func(context.Context, *socketio.Event) (any, error){
	"join":  join,
	"leave": leave,
	"to": func(ctx context.Context, e *socketio.Event) (any, error) {
		rooms, err := roomsArg(e)
		if err != nil {
			return nil, err
		}
		return emit(ctx, e, 1, e.Socket().To(rooms...))
	},
	"broadcast": func(ctx context.Context, e *socketio.Event) (any, error) {
		return emit(ctx, e, 0, e.Socket().Broadcast())
	},
	"all": func(ctx context.Context, e *socketio.Event) (any, error) {
		return emit(ctx, e, 0, e.Socket().Namespace().Everyone())
	},
	"self": func(ctx context.Context, e *socketio.Event) (any, error) {
		return emit(ctx, e, 0, e.Socket().Self())
	},
	"private": func(ctx context.Context, e *socketio.Event) (any, error) {
		id, err := stringArg(e, 0, "a socket id")
		if err != nil {
			return nil, err
		}
		return emit(ctx, e, 1, e.Socket().Namespace().ToSocket(id))
	},
	"history": history,
	"members": members,
}

// emit sends the event that the arguments from i on are: its name and its own
// arguments.
func emit(ctx context.Context, e *socketio.Event, i int, b socketio.Broadcast) (any, error) {
	name, err := stringArg(e, i, "an event name")
	if err != nil {
		return nil, err
	}
	if packet.Reserved(name) {
		return nil, fail(reservedEvent, "%q is an event of the client itself", name)
	}
	offset, err := b.Publish(ctx, name, e.Rest(i+1)...)
	if err != nil {
		return nil, err
	}
	return struct {
		OK     bool   `json:"ok"`
		Offset string `json:"offset"`
	}{true, offset}, nil
}

type roomsReply struct {
	OK    bool     `json:"ok"`
	Rooms []string `json:"rooms"`
}

func join(ctx context.Context, e *socketio.Event) (any, error) {
	rooms, err := roomsArg(e)
	if err != nil {
		return nil, err
	}
	if err := e.Socket().Join(ctx, rooms...); err != nil {
		return nil, err
	}
	return roomsReply{true, roomList(e.Socket())}, nil
}

func leave(ctx context.Context, e *socketio.Event) (any, error) {
	rooms, err := roomsArg(e)
	if err != nil {
		return nil, err
	}
	if err := e.Socket().Leave(ctx, rooms...); err != nil {
		return nil, err
	}
	return roomsReply{true, roomList(e.Socket())}, nil
}

// roomList is never nil, so that clients get an array.
func roomList(s *socketio.Socket) []string { return append([]string{}, s.Rooms()...) }

type historyEvent struct {
	Offset string `json:"offset"`
	Event  string `json:"event"`
	Args   []any  `json:"args"`
	At     int64  `json:"at"` // Unix time in milliseconds
}

func history(ctx context.Context, e *socketio.Event) (any, error) {
	room, err := memberRoom(e)
	if err != nil {
		return nil, err
	}
	var query struct {
		Limit  *int   `json:"limit"`
		Before string `json:"before"`
	}
	if err := e.Arg(1, &query); err != nil {
		return nil, fail(badRequest, "the second argument is an object with limit and before")
	}
	limit := defaultHistory
	if query.Limit != nil {
		limit = *query.Limit
	}
	if limit < 1 || limit > maxHistory {
		return nil, fail(badRequest, "limit is 1 to %d", maxHistory)
	}
	past, more, err := e.Socket().Namespace().History(ctx, room, query.Before, limit)
	if errors.Is(err, socketio.ErrOffset) {
		return nil, fail(badRequest, "before is the offset of an event")
	}
	if errors.Is(err, adapter.ErrHistoryLost) {
		return nil, fail(badRequest, "before is an offset of a history that is gone")
	}
	if err != nil {
		return nil, err
	}
	events := make([]historyEvent, len(past))
	for i, p := range past {
		events[i] = historyEvent{p.Offset, p.Event, p.Rest(0), p.At.UnixMilli()}
	}
	return map[string]any{"ok": true, "events": events, "more": more}, nil
}

type member struct {
	ID   string `json:"id"`
	User string `json:"user"`
}

func members(ctx context.Context, e *socketio.Event) (any, error) {
	room, err := memberRoom(e)
	if err != nil {
		return nil, err
	}
	all, err := e.Socket().Namespace().To(room).Timeout(membersTimeout).FetchSockets(ctx)
	silent := (*socketio.UnansweredError)(nil)
	if err != nil && !errors.As(err, &silent) {
		return nil, err
	}
	list := make([]member, len(all))
	for i, s := range all {
		list[i] = member{s.ID, s.User}
	}
	return struct {
		OK      bool     `json:"ok"`
		Members []member `json:"members"`
		Partial bool     `json:"partial"`
	}{true, list, silent != nil}, nil
}

// memberRoom returns the room that the first argument names, of which the sender
// must be a member.
func memberRoom(e *socketio.Event) (string, error) {
	room, err := stringArg(e, 0, "a room")
	if err != nil {
		return "", err
	}
	if err := checkRoom(room); err != nil {
		return "", err
	}
	if !e.Socket().InRoom(room) {
		return "", fail(notMember, "only members of %q may ask that", room)
	}
	return room, nil
}

// roomsArg returns the rooms that the first argument names: a string or an array
// of strings.
func roomsArg(e *socketio.Event) ([]string, error) {
	var rooms []string
	room, err := stringArg(e, 0, "a room or an array of rooms")
	if err == nil {
		rooms = []string{room}
	} else if e.Len() == 0 || e.Arg(0, &rooms) != nil {
		return nil, err
	}
	if len(rooms) == 0 {
		return nil, fail(badRequest, "no room is named")
	}
	if len(rooms) > maxRooms {
		return nil, fail(tooMany, "at most %d rooms in one event", maxRooms)
	}
	for _, room := range rooms {
		if err := checkRoom(room); err != nil {
			return nil, err
		}
	}
	return rooms, nil
}

func checkRoom(name string) error {
	if name == "" || len(name) > maxRoomName || !utf8.ValidString(name) {
		return fail(badRequest, "room names are 1 to %d bytes of UTF-8", maxRoomName)
	}
	return nil
}

func stringArg(e *socketio.Event, i int, what string) (string, error) {
	var s *string
	if err := e.Arg(i, &s); err != nil || s == nil || *s == "" {
		return "", fail(badRequest, "argument %d of %q is %s", i+1, e.Name, what)
	}
	return *s, nil
}

// A code says what kind of failure an ack reports, for programs.
type code string

const (
	badRequest    code = "bad_request"
	reservedEvent code = "reserved_event"
	unknownEvent  code = "unknown_event"
	notMember     code = "not_member"
	tooMany       code = "too_many"
	rateLimited   code = "rate_limited"
	unavailable   code = "unavailable"
	timeout       code = "timeout"
)

// A failed is an error with its code.
type failed struct {
	code    code
	message string
}

func (f *failed) Error() string { return f.message }

func fail(c code, format string, args ...any) error {
	return &failed{c, fmt.Sprintf(format, args...)}
}

type failureReply struct {
	OK      bool   `json:"ok"`
	Code    code   `json:"code"`
	Message string `json:"message"`
}

// failure returns the ack that reports an error. Whose time was over it reads off
// the request's context: calls within the cluster have deadlines of their own,
// which their errors name as well.
func failure(ctx context.Context, err error) failureReply {
	var f *failed
	switch {
	case errors.As(err, &f):
		return failureReply{Code: f.code, Message: f.message}
	case errors.Is(err, socketio.ErrTooManyRooms):
		return failureReply{Code: tooMany, Message: err.Error()}
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return failureReply{Code: timeout, Message: "it took too long; it may have happened"}
	}
	return failureReply{Code: unavailable, Message: "the cluster can't be reached; it may have happened"}
}

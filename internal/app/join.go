package app

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

func join(ctx context.Context, r *request) (any, error) {
	rooms, err := roomsArg(r, own, permit("join", r.client.Can.MayJoin))
	if err != nil {
		return nil, err
	}
	var options struct {
		Rewind *int    `json:"rewind"`
		Since  *string `json:"since"`
	}
	if err := r.Arg(1, &options); err != nil {
		return nil, fail(badRequest, "the second argument must be an object with the fields rewind and since")
	}
	enter := r.Socket().Join
	if (options.Rewind != nil || options.Since != nil) && r.HasAck() {
		if enter, err = r.rewind(rooms, options.Rewind, options.Since); err != nil {
			return nil, err
		}
	}
	if err := r.limits.Join(outside(r, rooms)); err != nil {
		return nil, fail(rateLimited, "%v; this call was dropped", err)
	}
	return r.change(ctx, rooms, enter)
}

// errAnswered means that the event has been acked.
var errAnswered = errors.New("app: event acked")

// rewind returns the function that joins rooms and acks with their history. Such a join is a read as
// history is, with its permission and its rate.
func (r *request) rewind(rooms []string, last *int, since *string) (func(context.Context, ...string) error, error) {
	back := socketio.Rewind{Answer: func(found *socketio.Rewound) []any {
		return []any{struct {
			roomsReply
			*socketio.Rewound
		}{r.rooms(), found}}
	}}
	if last != nil {
		if *last < 0 || *last > socketio.RewindEvents {
			return nil, fail(badRequest, "rewind must be 0 to %d", socketio.RewindEvents)
		}
		back.Last = *last
	}
	if since != nil {
		if back.Since = *since; *since == "" {
			return nil, errSince
		}
	}
	if len(rooms) > socketio.RewindRooms {
		return nil, fail(tooMany, "at most %d rooms in a join with their history", socketio.RewindRooms)
	}
	for _, room := range rooms {
		if err := permit("history", r.client.Can.MayReadHistory)(room); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context, names ...string) error {
		_, err := read(func(ctx context.Context, _ *request) (any, error) {
			var bytes atomic.Int64
			defer func() { r.read += int(bytes.Load()) }()
			counted := adapter.OnRead(ctx, func(n int) { bytes.Add(int64(n)) })
			return nil, r.AckJoin(counted, back, names...)
		})(ctx, r)
		switch {
		case err == nil:
			return errAnswered
		case errors.Is(err, socketio.ErrOffset):
			return errSince
		case errors.Is(err, adapter.ErrHistoryLost):
			return fail(unavailable, "the history was lost during the join; join again")
		case errors.Is(err, socketio.ErrBusy):
			return fail(unavailable, "too many joins with history on this node, try again later")
		}
		return err
	}, nil
}

var errSince = fail(badRequest, "since must be the offset of an event")

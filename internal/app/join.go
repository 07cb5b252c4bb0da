package app

import (
	"context"
	"errors"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

func join(ctx context.Context, r *request) (any, error) {
	rooms, err := roomsArg(r, own, permit("join", r.client.Can.MayJoin))
	if err != nil {
		return nil, err
	}
	var options struct {
		Rewind *int `json:"rewind"`
	}
	if err := r.Arg(1, &options); err != nil {
		return nil, fail(badRequest, "the second argument must be an object with the field rewind")
	}
	enter := r.Socket().Join
	if options.Rewind != nil && r.HasAck() {
		if enter, err = r.rewind(rooms, *options.Rewind); err != nil {
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

// rewind returns the function that joins rooms and acks with their newest events. Such a join is a
// read as history is, with its permission and its rate.
func (r *request) rewind(rooms []string, last int) (func(context.Context, ...string) error, error) {
	if last < 0 || last > socketio.RewindEvents {
		return nil, fail(badRequest, "rewind must be 0 to %d", socketio.RewindEvents)
	}
	if len(rooms) > socketio.RewindRooms {
		return nil, fail(tooMany, "at most %d rooms in a join with rewind", socketio.RewindRooms)
	}
	for _, room := range rooms {
		if err := permit("history", r.client.Can.MayReadHistory)(room); err != nil {
			return nil, err
		}
	}
	enter := func(ctx context.Context, names ...string) error {
		counted := adapter.OnRead(ctx, func(bytes int) { r.read += bytes })
		return r.AckJoin(counted, socketio.Rewind{Last: last, Answer: func(found *socketio.Rewound) []any {
			return []any{struct {
				roomsReply
				*socketio.Rewound
			}{r.rooms(), found}}
		}}, names...)
	}
	return func(ctx context.Context, names ...string) error {
		_, err := read(func(ctx context.Context, _ *request) (any, error) { return nil, enter(ctx, names...) })(ctx, r)
		if err == nil {
			err = errAnswered
		}
		return err
	}, nil
}

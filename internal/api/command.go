package api

import (
	"context"

	"github.com/rejoin-io/rejoin/internal/auth"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

func (a *API) join(ctx context.Context, body []byte, k *callKey) (any, error) {
	var c struct {
		target
		Join list[string] `json:"join"`
	}
	if err := a.decode(ctx, body, &c); err != nil {
		return nil, err
	}
	b, err := a.moved(ctx, c.target, "join", c.Join)
	if err != nil {
		return nil, err
	}
	return nil, b.Keyed(k.next()).SocketsJoin(ctx, c.Join...)
}

func (a *API) leave(ctx context.Context, body []byte, k *callKey) (any, error) {
	var c struct {
		target
		Leave list[string] `json:"leave"`
	}
	if err := a.decode(ctx, body, &c); err != nil {
		return nil, err
	}
	b, err := a.moved(ctx, c.target, "leave", c.Leave)
	if err != nil {
		return nil, err
	}
	return nil, b.Keyed(k.next()).SocketsLeave(ctx, c.Leave...)
}

// moved returns the target of a call that joins or leaves rooms. A user's room has the sockets of
// that user, so it cannot be joined or left.
func (a *API) moved(ctx context.Context, t target, field string, rooms []string) (b socketio.Broadcast, err error) {
	if len(rooms) == 0 {
		return b, fail(badRequest, "%s must be a list of rooms", field)
	}
	for _, room := range rooms {
		if auth.OfUser(room) {
			return b, fail(badRequest, "%s: rooms with the prefix %s are reserved for users", field, auth.UserRoom(""))
		}
	}
	if err := checkNames(field, rooms); err != nil {
		return b, err
	}
	if err := callerOf(ctx).mayUse(rooms...); err != nil {
		return b, err
	}
	if err := callerOf(ctx).mayExcept(t); err != nil {
		return b, err
	}
	return a.broadcast(ctx, t)
}

func (a *API) disconnect(ctx context.Context, body []byte, k *callKey) (any, error) {
	var c struct {
		target
		Close bool `json:"close"`
	}
	if err := a.decode(ctx, body, &c); err != nil {
		return nil, err
	}
	if err := callerOf(ctx).mayExcept(c.target); err != nil {
		return nil, err
	}
	if c.Close {
		if err := callerOf(ctx).mayClose(); err != nil {
			return nil, err
		}
	}
	b, err := a.broadcast(ctx, c.target)
	if err != nil {
		return nil, err
	}
	return nil, b.Keyed(k.next()).DisconnectSockets(ctx, c.Close)
}

package api

import (
	"context"

	"github.com/rejoin-io/rejoin/internal/auth"
)

func (a *API) join(ctx context.Context, body []byte) (any, error) {
	var c struct {
		target
		Join []string `json:"join"`
	}
	if err := decode(body, &c); err != nil {
		return nil, err
	}
	if err := named("join", c.Join); err != nil {
		return nil, err
	}
	b, err := a.broadcast(c.target)
	if err != nil {
		return nil, err
	}
	return nil, b.SocketsJoin(ctx, c.Join...)
}

func (a *API) leave(ctx context.Context, body []byte) (any, error) {
	var c struct {
		target
		Leave []string `json:"leave"`
	}
	if err := decode(body, &c); err != nil {
		return nil, err
	}
	if err := named("leave", c.Leave); err != nil {
		return nil, err
	}
	b, err := a.broadcast(c.target)
	if err != nil {
		return nil, err
	}
	return nil, b.SocketsLeave(ctx, c.Leave...)
}

// named checks the rooms to be joined or left. A user's room has the sockets of that user, so it
// cannot be joined or left.
func named(field string, rooms []string) error {
	if len(rooms) == 0 {
		return fail(badRequest, "%s must be a list of rooms", field)
	}
	for _, room := range rooms {
		if auth.OfUser(room) {
			return fail(badRequest, "%s: rooms with the prefix %s are reserved for users", field, auth.UserRoom(""))
		}
	}
	return checkNames(field, rooms)
}

func (a *API) disconnect(ctx context.Context, body []byte) (any, error) {
	var c struct {
		target
		Close bool `json:"close"`
	}
	if err := decode(body, &c); err != nil {
		return nil, err
	}
	b, err := a.broadcast(c.target)
	if err != nil {
		return nil, err
	}
	return nil, b.DisconnectSockets(ctx, c.Close)
}

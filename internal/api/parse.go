package api

import (
	"context"

	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// An Emit is an event with its receivers. Its namespace is kept until Release is called.
type Emit struct {
	Broadcast socketio.Broadcast
	Event     string
	Args      []any
	Release   func()
}

// ParseEmit checks a body of the route emit, for other packages of the node, and returns what the route
// would emit. namespace is that of a body that names none. If to is not nil it holds the receivers, and
// the body must not name any. The error is for the author of the body.
func (a *API) ParseEmit(body []byte, namespace string, to *socketio.Broadcast) (parsed Emit, err error) {
	req := &request{caller: new(Caller)} // the node itself: no scope
	defer func() {
		if err != nil {
			req.end()
		}
	}()
	var e emitBody
	if err := decode(body, &e); err != nil {
		return Emit{}, err
	}
	values, err := e.values()
	if err != nil {
		return Emit{}, err
	}
	if _, _, err := packet.AppendArgs(nil, values...); err != nil {
		return Emit{}, fail(badRequest, "unsupported arguments: %v", err)
	}
	var b socketio.Broadcast
	switch {
	case to == nil:
		if e.Namespace == nil {
			e.Namespace = &namespace
		}
		if b, err = a.broadcast(context.WithValue(context.Background(), requestKey{}, req), e.target); err != nil {
			return Emit{}, err
		}
	case e.names():
		return Emit{}, fail(badRequest, "the receivers are given already")
	default:
		b = *to
	}
	if e.Volatile {
		b = b.Volatile()
	}
	return Emit{b, e.Event, values, req.end}, nil
}

// names reports whether a target names anything.
func (t *target) names() bool {
	return t.Namespace != nil || t.Everyone || len(t.Rooms)+len(t.Users)+len(t.Sockets)+len(t.Except)+len(t.ExceptUsers)+len(t.ExceptSockets) > 0
}

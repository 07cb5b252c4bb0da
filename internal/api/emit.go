package api

import (
	"context"
	"encoding/json"

	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// An event is an event to be sent. Its arguments remain raw JSON. An event with binary data has it
// in attachments, and placeholders in its place, as in packets.
type event struct {
	Event       string                `json:"event"`
	Args        list[json.RawMessage] `json:"args"`
	Attachments list[[]byte]          `json:"attachments"`
}

// values returns the arguments for the library.
func (e event) values() ([]any, error) {
	switch {
	case e.Event == "":
		return nil, fail(badRequest, "event must be the name of an event")
	case packet.Reserved(e.Event):
		return nil, fail(reservedEvent, "%q is reserved for the client", e.Event)
	}
	values := make([]any, len(e.Args))
	for i, arg := range e.Args {
		values[i] = packet.Raw{JSON: arg, Attachments: e.Attachments}
	}
	if len(e.Attachments) > 0 {
		if _, used, err := packet.AppendArgs(nil, values...); err != nil {
			return nil, err
		} else if len(used) != len(e.Attachments) {
			return nil, fail(badRequest, "%d attachments have %d placeholders", len(e.Attachments), len(used))
		}
	}
	return values, nil
}

type emitBody struct {
	target
	event
	Volatile bool `json:"volatile"`
}

type emitAnswer struct {
	Offset string `json:"offset"`
}

func (a *API) emit(ctx context.Context, body []byte, k *callKey) (any, error) {
	var e emitBody
	if err := a.decode(ctx, body, &e); err != nil {
		return nil, err
	}
	answer, err := a.publish(ctx, e, k.next())
	if err != nil {
		return nil, err
	}
	return answer, nil
}

func (a *API) publish(ctx context.Context, e emitBody, o *socketio.Once) (emitAnswer, error) {
	b, values, err := a.addressed(ctx, e.target, e.event)
	if err != nil {
		return emitAnswer{}, err
	}
	if e.Volatile {
		b = b.Volatile()
	}
	offset, err := b.Keyed(o).Publish(ctx, e.Event, values...)
	return emitAnswer{offset}, err
}

func (a *API) addressed(ctx context.Context, t target, e event) (b socketio.Broadcast, values []any, err error) {
	if values, err = e.values(); err != nil {
		return b, nil, err
	}
	b, err = a.broadcast(ctx, t)
	return b, values, err
}

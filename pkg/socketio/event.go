package socketio

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/rejoin-io/rejoin/pkg/packet"
)

// A Handler handles one received event. The context is the socket's: see [Socket.Context]. A
// returned error goes to the socket's OnError handlers, unless it only says that this context has
// ended. The client does not receive it.
type Handler func(ctx context.Context, e *Event) error

// Args are the arguments of an event or an ack, kept as raw JSON until decoded. They are read-only
// and may be kept.
type Args struct {
	raw         []json.RawMessage
	attachments [][]byte
}

// Len returns the number of arguments.
func (a Args) Len() int { return len(a.raw) }

// Attachments returns the number of binary parts in all arguments. A packet has at most
// [packet.MaxAttachments].
func (a Args) Attachments() int { return len(a.attachments) }

// Raw returns the JSON of argument i, or nil if there is none. Binary parts are
// placeholders in it.
func (a Args) Raw(i int) json.RawMessage {
	if i < 0 || i >= len(a.raw) {
		return nil
	}
	return a.raw[i]
}

// Arg decodes argument i into v as encoding/json does; binary data goes into a []byte,
// packet.Binary or any. A missing argument leaves v unchanged, as null does: use Arg for optional
// arguments.
//
// A string is not decoded into a []byte or packet.Binary, because encoding/json would
// take it for base64: see [packet.Unmarshal].
func (a Args) Arg(i int, v any) error {
	if i < 0 || i >= len(a.raw) {
		return nil
	}
	if err := packet.Unmarshal(a.raw[i], a.attachments, v); err != nil {
		return fmt.Errorf("socketio: argument %d: %w", i, err)
	}
	return nil
}

// Bind decodes the leading arguments, one into each of vs, as Arg does, and ignores
// further ones. If there are fewer it decodes none and returns ErrMissingArgument.
func (a Args) Bind(vs ...any) error {
	if len(a.raw) < len(vs) {
		return fmt.Errorf("%w: argument %d: got %d arguments, want %d", ErrMissingArgument, len(a.raw), len(a.raw), len(vs))
	}
	for i, v := range vs {
		if err := a.Arg(i, v); err != nil {
			return err
		}
	}
	return nil
}

// Values decodes all arguments into encoding/json's default types, with binary data as []byte.
func (a Args) Values() ([]any, error) {
	vs := make([]any, len(a.raw))
	for i := range vs {
		if err := a.Arg(i, &vs[i]); err != nil {
			return nil, err
		}
	}
	return vs, nil
}

// From returns the arguments from i on.
func (a Args) From(i int) Args {
	return Args{raw: a.raw[min(i, len(a.raw)):], attachments: a.attachments}
}

// Rest returns the arguments from i on, including binary parts, to be forwarded unchanged: each is
// a value for Emit or Ack.
func (a Args) Rest(i int) []any {
	vs := make([]any, 0, max(0, len(a.raw)-i))
	for ; i < len(a.raw); i++ {
		if len(a.attachments) == 0 {
			vs = append(vs, packet.Checked(a.raw[i]))
		} else {
			vs = append(vs, packet.Raw{JSON: a.raw[i], Attachments: a.attachments})
		}
	}
	return vs
}

// Array returns the arguments as one array, including binary parts, to be forwarded unchanged: it
// is a value for Emit or Ack, or part of one.
func (a Args) Array() packet.Raw {
	text := append(make([]byte, 0, 2+len(a.raw)+totalSize(a.raw)), '[')
	for i, arg := range a.raw {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(text, arg...)
	}
	return packet.Raw{JSON: append(text, ']'), Attachments: a.attachments}
}

// An Event is one event that arrived from a client, or from another node.
type Event struct {
	Name string
	Args

	socket *Socket
	size   int
	at     time.Time                               // when it was received from a client
	ackID  string                                  // the client's; "" if it requests none
	reply  func(data []byte, attachments [][]byte) // of another node's event; nil if it requests none
	acked  atomic.Bool
}

// eventOverhead is the approximate memory, in bytes, that an event takes beside its payload and the
// slices of its arguments: a high estimate.
const eventOverhead = 256

// cost is the event's memory use, in bytes.
func (e *Event) cost() int { return e.size + eventOverhead + 24*(len(e.raw)+len(e.attachments)) }

// do handles the event, which counts in the receive budget until do returns.
func (e *Event) do() {
	c, cost := e.socket.client, e.cost()
	if cost >= receivedStep {
		c.srv.received.keeps(c, cost)
		defer c.srv.received.keeps(c, -cost)
	}
	e.socket.awaitQueueSpace()
	e.socket.handle(e)
}

// Socket returns the socket that the event came from; nil if it came from
// another node.
func (e *Event) Socket() *Socket { return e.socket }

// Size returns the number of bytes of JSON and attachments that the client sent; 0 for an event of
// another node.
func (e *Event) Size() int { return e.size }

// Received returns when the event arrived from the client, so that a handler can determine how long it was
// queued behind the handlers of the client's earlier events. It is zero for an event of another node.
func (e *Event) Received() time.Time { return e.at }

// HasAck reports whether the sender requests an ack.
func (e *Event) HasAck() bool { return e.ackID != "" || e.reply != nil }

// CanAck reports whether an ack would be sent: the sender requests one, has not received it, and
// is still connected. If it returns false, a handler that only reads data for the ack can skip
// the work, for example for requests that were queued when their connection closed.
func (e *Event) CanAck() bool {
	if !e.HasAck() || e.acked.Load() {
		return false
	}
	if e.socket == nil {
		return true
	}
	e.socket.mu.Lock()
	defer e.socket.mu.Unlock()
	return !e.socket.stage.gone()
}

// Ack answers the sender. It queues the answer, and waits before that while 32 KiB of answers, or an
// eighth of Engine.SendQueueBytes if that is less, are queued for the client: as long as the client takes
// anything, and at the latest until the socket ends. A larger answer also waits, for half of
// Engine.PingTimeout at most, until it fits in three quarters of Engine.SendQueueBytes beside what else
// is queued. Answers do not count in Engine.SendQueueBytes, but a client for which 16 times as much waits
// is cut. Ack is safe for concurrent use. Only the first call answers; later calls, and calls for an
// event that requests no ack, return ErrNoAck. If the values cannot be encoded it returns an error, and
// Ack can be called again.
//
// The client receives the ack after every event that the socket receives and that was published before
// with the handler's context, or one derived from it, or through the socket (Emit, Self, To, …), with
// any context. An ack waits for such events for at most Options.AckTimeout. It is sent without them
// after that, when the socket ends, or when the node's budget for what is held is used up. If the acks
// of a socket that wait for events, and then for the client, reach half of Engine.SendQueueBytes, Ack
// itself waits. It does not wait for an event to rooms that the socket, as its node knew it, was not in
// when the event was published. If a SocketsJoin to them was in flight, the event may follow the ack.
func (e *Event) Ack(args ...any) error {
	if !e.HasAck() || e.acked.Load() {
		return ErrNoAck
	}
	data, attachments, err := encodeArray(args)
	if err != nil {
		return err
	}
	if e.acked.Swap(true) { // another call was first
		return ErrNoAck
	}
	if e.reply != nil {
		e.reply(data, attachments)
		return nil
	}
	return e.socket.sendAck(e.ackID, data, attachments)
}

// encodeEmit returns an event as its JSON array and attachments.
func encodeEmit(event string, args []any) ([]byte, [][]byte, error) {
	if packet.Reserved(event) {
		return nil, nil, fmt.Errorf("%w: %q", ErrReserved, event)
	}
	all := make([]any, 0, 1+len(args))
	return encodeArray(append(append(all, event), args...))
}

func encodeArray(args []any) ([]byte, [][]byte, error) {
	size := 64
	for _, arg := range args {
		if text, ok := arg.(packet.Checked); ok {
			size += len(text)
		}
	}
	b := append(make([]byte, 0, size), '[')
	b, attachments, err := packet.AppendArgs(b, args...)
	if err != nil {
		return nil, nil, fmt.Errorf("socketio: arguments: %w", err)
	}
	return append(b, ']'), attachments, nil
}

func decodeArgs(data []byte, attachments [][]byte) (Args, error) {
	raw, err := packet.SplitArray(data)
	return Args{raw: raw, attachments: attachments}, err
}

package socketio

import (
	"bytes"
	"strconv"
	"time"

	"github.com/rejoin-io/rejoin/pkg/packet"
)

// A Past is an event of a room's backlog. As a value for Emit or Ack, or a part of one, it is an object
// with the fields offset, event, args (an array), at (Unix time in milliseconds), and tooDeep if that is
// true.
type Past struct {
	Offset string // also the argument before of History, for the events before this one
	Event  string // the event's name
	Args
	At time.Time // when the event was published
	// TooDeep means that the arguments are omitted, because they are nested too deep for an answer
	// with the event. [Namespace.History] does not set it; see [Past.Nested].
	TooDeep bool
}

// pastBytes is an event's size beside its name and arguments: position, publisher, time and target.
const pastBytes = 100

// Size returns the event's approximate size in its backlog, in bytes.
func (p *Past) Size() int {
	return pastBytes + len(p.Event) + totalSize(p.raw) + totalSize(p.attachments)
}

// MarshalJSON returns the event as an object. In an argument of Emit or Ack binary parts become
// attachments, and otherwise base64.
func (p Past) MarshalJSON() ([]byte, error) {
	args, err := p.Array().MarshalJSON()
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, len(args)+len(p.Event)+len(p.Offset)+64)
	b = packet.AppendString(append(b, `{"offset":`...), p.Offset)
	b = packet.AppendString(append(b, `,"event":`...), p.Event)
	b = append(append(b, `,"args":`...), args...)
	b = strconv.AppendInt(append(b, `,"at":`...), p.At.UnixMilli(), 10)
	if p.TooDeep {
		b = append(b, `,"tooDeep":true`...)
	}
	return append(b, '}'), nil
}

// Nested returns the event for an argument in which levels arrays and objects surround it. If its own
// arguments would be nested deeper than [packet.MaxDepth] there, they are omitted and TooDeep is set:
// one such event must not prevent an answer with others.
func (p Past) Nested(levels int) Past {
	const around = 3 // the packet's array, the event's object, and the array of its arguments
	brackets := 0
	for _, arg := range p.raw {
		brackets += bytes.Count(arg, []byte{'['}) + bytes.Count(arg, []byte{'{'})
	}
	if around+levels+brackets < packet.MaxDepth {
		return p
	}
	var v any = p.Array()
	for range levels + 1 {
		v = []any{v}
	}
	if _, _, err := packet.AppendArgs(nil, v); err != nil {
		p.Args, p.TooDeep = Args{}, true
	}
	return p
}

package redis

import (
	"encoding/binary"
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// An event in Redis is a string of fields, each with its length in front of it:
//
//	version, kind, flags, stored         a byte each
//	from, ask                            strings
//	number of rooms in To, in Except     then each: kind (a byte), namespace, name
//	number of earlier copies             then each: two numbers and a byte for its
//	                                     position, and its rooms like To
//	data
//	number of attachments                then each
//
// Lengths and numbers are unsigned varints. A message is version, kind, from, id
// and data. On a channel the position comes first, as text, then a space.

const version = 1

var errMalformed = errors.New("adapter/redis: malformed message")

func appendString[S ~string | ~[]byte](b []byte, s S) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func encodeEvent(e *adapter.Event) []byte {
	size := 16 + len(e.From) + len(e.Ask) + len(e.Data) + 64*(len(e.Target.To)+len(e.Target.Except))
	for _, a := range e.Attachments {
		size += len(a) + binary.MaxVarintLen32
	}
	b := make([]byte, 0, size)
	stored := byte(0)
	if e.Stored {
		stored = 1
	}
	b = append(b, version, e.Kind, e.Flags, stored)
	b = appendString(b, e.From)
	b = appendString(b, e.Ask)
	b = appendRooms(b, e.Target.To)
	b = appendRooms(b, e.Target.Except)
	b = binary.AppendUvarint(b, uint64(len(e.Earlier)))
	for _, c := range e.Earlier {
		b = binary.AppendUvarint(b, c.At.Ms)
		b = binary.AppendUvarint(b, c.At.Seq)
		b = append(b, byte(c.At.Partition))
		b = appendRooms(b, c.To)
	}
	b = appendString(b, e.Data)
	b = binary.AppendUvarint(b, uint64(len(e.Attachments)))
	for _, a := range e.Attachments {
		b = appendString(b, a)
	}
	return b
}

func appendRooms(b []byte, list []rooms.Room) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, r := range list {
		b = append(b, byte(r.Kind))
		b = appendString(b, r.Namespace)
		b = appendString(b, r.Name)
	}
	return b
}

// decodeEvent reads what encodeEvent wrote. The event's strings are parts of s.
func decodeEvent(s string) (*adapter.Event, error) {
	d := decoder{rest: s}
	if d.byte() != version {
		return nil, errMalformed
	}
	e := &adapter.Event{Kind: d.byte(), Flags: d.byte(), Stored: d.byte() != 0}
	e.From = adapter.NodeID(d.string())
	e.Ask = d.string()
	e.Target.To = d.rooms()
	e.Target.Except = d.rooms()
	if n := d.count(4); n > 0 {
		e.Earlier = make([]adapter.Copy, n)
		for i := range e.Earlier {
			at := adapter.Position{Ms: d.number(), Seq: d.number(), Partition: uint16(d.byte())}
			e.Earlier[i] = adapter.Copy{At: at, To: d.rooms()}
		}
	}
	e.Data = d.bytes()
	if n := d.count(1); n > 0 {
		e.Attachments = make([][]byte, n)
		for i := range e.Attachments {
			e.Attachments[i] = d.bytes()
		}
	}
	if d.bad || d.rest != "" {
		return nil, errMalformed
	}
	return e, nil
}

func encodeMessage(m adapter.Message) []byte {
	b := make([]byte, 0, 16+len(m.From)+len(m.ID)+len(m.Data))
	b = append(b, version, m.Kind)
	b = appendString(b, m.From)
	b = appendString(b, m.ID)
	return appendString(b, m.Data)
}

func decodeMessage(s string) (adapter.Message, error) {
	d := decoder{rest: s}
	if d.byte() != version {
		return adapter.Message{}, errMalformed
	}
	m := adapter.Message{Kind: d.byte(), From: adapter.NodeID(d.string()), ID: d.string(), Data: d.bytes()}
	if d.bad || d.rest != "" {
		return adapter.Message{}, errMalformed
	}
	return m, nil
}

// A decoder takes fields off a string. Once something was wrong it returns
// zeros, and bad stays true.
type decoder struct {
	rest string
	bad  bool
}

func (d *decoder) byte() byte {
	if d.rest == "" {
		d.bad = true
		return 0
	}
	c := d.rest[0]
	d.rest = d.rest[1:]
	return c
}

func (d *decoder) number() (n uint64) {
	for shift := 0; ; shift += 7 {
		c := d.byte()
		if d.bad || shift > 63 {
			d.bad = true
			return 0
		}
		n |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return n
		}
	}
}

// count reads a number of things of which each takes at least size bytes.
func (d *decoder) count(size int) int {
	n := d.number()
	if n > uint64(len(d.rest)/size) {
		d.bad = true
		return 0
	}
	return int(n)
}

func (d *decoder) string() string {
	n := d.count(1)
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s
}

func (d *decoder) bytes() []byte {
	if s := d.string(); s != "" {
		return []byte(s)
	}
	return nil
}

func (d *decoder) rooms() []rooms.Room {
	n := d.count(3)
	if n == 0 {
		return nil
	}
	list := make([]rooms.Room, n)
	for i := range list {
		list[i] = rooms.Room{Kind: rooms.Kind(d.byte()), Namespace: d.string(), Name: d.string()}
	}
	return list
}

// perCall is how many positions a call has: its entry in the clock is issued
// once, and its k-th event is at ms-(seq*perCall+k).
const perCall = 1024

// An entry is one call's place in the clock.
type entry struct {
	ms, seq uint64
	call    string // its random id; "" if not known
}

// position returns that of the call's k-th event.
func (p *partition) position(e entry, k int) adapter.Position {
	return adapter.Position{Ms: e.ms, Seq: e.seq*perCall + uint64(k), Partition: p.number}
}

// end returns the last position that the call can have issued.
func (p *partition) end(e entry) adapter.Position { return p.position(e, perCall-1) }

func (e entry) id() string { return formatID(e.ms, e.seq) }

func (e entry) before(f entry) bool { return e.ms < f.ms || e.ms == f.ms && e.seq < f.seq }

// entryOf returns the entry of the call that issued a position.
func entryOf(p adapter.Position) entry { return entry{ms: p.Ms, seq: p.Seq / perCall} }

func formatID(ms, seq uint64) string {
	b := make([]byte, 0, 24)
	b = strconv.AppendUint(b, ms, 10)
	b = append(b, '-')
	return string(strconv.AppendUint(b, seq, 10))
}

func formatPosition(p adapter.Position) string { return formatID(p.Ms, p.Seq) }

// parseID reads a stream's id.
func parseID(s string) (ms, seq uint64, err error) {
	left, right, ok := strings.Cut(s, "-")
	ms, err1 := strconv.ParseUint(left, 10, 64)
	seq, err2 := strconv.ParseUint(right, 10, 64)
	if !ok || err1 != nil || err2 != nil || seq > math.MaxUint64/perCall {
		return 0, 0, errMalformed
	}
	return ms, seq, nil
}

func (p *partition) parsePosition(s string) (adapter.Position, error) {
	left, right, ok := strings.Cut(s, "-")
	ms, err1 := strconv.ParseUint(left, 10, 64)
	seq, err2 := strconv.ParseUint(right, 10, 64)
	if !ok || err1 != nil || err2 != nil {
		return adapter.Position{}, errMalformed
	}
	return adapter.Position{Ms: ms, Seq: seq, Partition: p.number}, nil
}

package redis

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis/internal/feed"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// An event in Redis is a string of fields, each preceded by its length. Each of its rooms has a
// copy, which does not name the other rooms:
//
//	version, kind, flags, how        a byte each; how says stored and listed
//	from, ask                        strings
//	lists                            unless it is listed
//	data
//	number of attachments            then each
//
// The lists of an event describe other rooms:
//
//	number of rooms in Except        then each: kind (a byte), namespace, name
//	number of earlier copies         then each: two numbers and a byte for its
//	                                 position, and its rooms like Except
//
// If they are long and the event has several rooms in the partition, the event is listed: its
// lists, preceded by a version, are stored and published once, under the name "lists" and just
// before the copies. So the work for an event to many rooms grows with their number, and not with
// its square.
//
// A message is version, kind, from, id and data. Lengths and numbers are unsigned
// varints.
//
// No version changes these parts: in a stream an event is the field "e" of the entry at its
// position; on a channel its position comes first, as text, then one character; and the first byte
// of an event is the version. The character is a tilde if further copies of the event follow, to
// other rooms, and a space otherwise.
//
// Version 1, of releases before 0.4, has the rooms of the event before its lists, which are never
// stored separately. It is read, so that backlogs survive an update, and not written.

// Bits of an event's fourth byte: how it is stored.
const (
	howStored = 1 << iota
	howListed
)

// longLists is the size in bytes from which lists are stored once for all copies.
const longLists = 128

var errMalformed = fmt.Errorf("%w: malformed", adapter.ErrUndecodable)

// decodable returns an error if this node cannot decode data of version v.
func decodable(v byte) error {
	switch {
	case v > version:
		return fmt.Errorf("%w: %w: %d, this node knows %d", adapter.ErrUndecodable, adapter.ErrNewerVersion, v, version)
	case v == 0:
		return errMalformed
	}
	return nil
}

func appendString[S ~string | ~[]byte](b []byte, s S) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// encodeEvent returns an event in the form in which each of its rooms in a partition stores it, and
// its lists if they are to be stored separately.
func encodeEvent(e *adapter.Event, copies int) (payload, lists []byte) {
	rooms := len(e.Target.Except)
	for _, c := range e.Earlier {
		rooms += len(c.To)
	}
	size := 16 + len(e.From) + len(e.Ask) + len(e.Data)
	for _, a := range e.Attachments {
		size += len(a) + binary.MaxVarintLen32
	}
	how := byte(0)
	if e.Stored {
		how = howStored
	}
	if copies > 1 && rooms > 0 {
		if lists = appendLists([]byte{version}, e); len(lists) >= longLists {
			how |= howListed
		} else {
			lists = nil
		}
	}
	if how&howListed == 0 {
		size += 64 * rooms
	}
	b := make([]byte, 0, size)
	b = append(b, version, e.Kind, e.Flags, how)
	b = appendString(b, e.From)
	b = appendString(b, e.Ask)
	if how&howListed == 0 {
		b = appendLists(b, e)
	}
	b = appendString(b, e.Data)
	b = binary.AppendUvarint(b, uint64(len(e.Attachments)))
	for _, a := range e.Attachments {
		b = appendString(b, a)
	}
	return b, lists
}

func appendLists(b []byte, e *adapter.Event) []byte {
	b = appendRooms(b, e.Target.Except)
	b = binary.AppendUvarint(b, uint64(len(e.Earlier)))
	for _, c := range e.Earlier {
		b = binary.AppendUvarint(b, c.At.Ms)
		b = binary.AppendUvarint(b, c.At.Seq)
		b = append(b, byte(c.At.Partition))
		b = appendRooms(b, c.To)
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

// smallEvent is the payload size, in bytes, from which the fields before the payload are copied.
const smallEvent = 256

// decodeEvent decodes the result of encodeEvent for one room: to. The lists of a listed event must
// be read separately. The payload is omitted if it is larger than hold. Unless it is small, the event
// refers to no part of s, because events that are held would keep s beside their payload.
func decodeEvent(s string, to []rooms.Room, hold int) (e *adapter.Event, listed bool, err error) {
	d := decoder{rest: s}
	e = new(adapter.Event)
	if listed, err = d.head(e, to); err != nil {
		return nil, false, err
	}
	head, rest := len(s)-len(d.rest), d
	size := rest.skipPayload()
	if size > min(hold, smallEvent) {
		of := decoder{rest: strings.Clone(s[:head])}
		_, _ = of.head(e, to) // as before
	}
	if size > hold {
		e.Omitted, d = uint32(size), rest
	} else {
		d.payload(e)
	}
	if d.bad || d.rest != "" {
		return nil, false, errMalformed
	}
	return e, listed, nil
}

// head reads the fields before the payload.
func (d *decoder) head(e *adapter.Event, to []rooms.Room) (listed bool, err error) {
	v := d.byte()
	if err := decodable(v); err != nil {
		return false, err
	}
	e.Kind, e.Flags = d.byte(), d.byte()
	how := d.byte()
	e.Stored, listed = how&howStored != 0, how&howListed != 0
	e.From = adapter.NodeID(d.string())
	e.Ask = d.string()
	if e.Target.To = to; v == 1 {
		e.Target.To = d.rooms()
	}
	if !listed {
		d.lists(e)
	}
	if d.bad || len(e.Target.To) == 0 {
		return false, errMalformed
	}
	return listed, nil
}

func (d *decoder) payload(e *adapter.Event) {
	e.Data = d.bytes()
	if n := d.attachments(); n > 0 {
		e.Attachments = make([][]byte, n)
		for i := range e.Attachments {
			e.Attachments[i] = d.bytes()
		}
	}
}

// skipPayload returns the size of the payload.
func (d *decoder) skipPayload() int {
	size := len(d.string())
	for range d.attachments() {
		size += len(d.string())
	}
	return size
}

// attachments reads the number of attachments.
func (d *decoder) attachments() int {
	n := d.count(1)
	if n > adapter.MaxAttachments {
		d.bad = true
		return 0
	}
	return n
}

// decodeLists reads separately stored lists into an event.
func decodeLists(s string, e *adapter.Event) error {
	d := decoder{rest: s}
	if err := decodable(d.byte()); err != nil {
		return err
	}
	if d.lists(e); d.bad || d.rest != "" {
		return errMalformed
	}
	return nil
}

func (d *decoder) lists(e *adapter.Event) {
	e.Target.Except = d.rooms()
	n := d.count(4)
	if n > maxListed {
		d.bad = true
		return
	}
	if n > 0 {
		e.Earlier = make([]adapter.Copy, n)
		for i := range e.Earlier {
			at := adapter.Position{Ms: d.number(), Seq: d.number(), Partition: uint16(d.byte())}
			e.Earlier[i] = adapter.Copy{At: at, To: d.rooms()}
		}
	}
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
	if err := decodable(d.byte()); err != nil {
		return adapter.Message{}, err
	}
	m := adapter.Message{Kind: d.byte(), From: adapter.NodeID(d.string()), ID: d.string(), Data: d.bytes()}
	if d.bad || d.rest != "" {
		return adapter.Message{}, errMalformed
	}
	return m, nil
}

// A decoder reads fields from the front of a string. After an error it returns zeros, and bad stays
// true.
type decoder struct {
	rest   string
	bad    bool
	listed int // rooms so far
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

// count reads the number of items that take at least size bytes each.
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

// maxListed is the maximum number of rooms in all lists of an event: those that it names, two more,
// and as many in its earlier copies.
const maxListed = 2 * (adapter.MaxRooms + 2)

func (d *decoder) rooms() []rooms.Room {
	n := d.count(3)
	if d.listed += n; d.listed > maxListed {
		d.bad = true
	}
	if n == 0 || d.bad {
		return nil
	}
	list := make([]rooms.Room, n)
	for i := range list {
		list[i] = rooms.Room{Kind: rooms.Kind(d.byte()), Namespace: d.string(), Name: d.string()}
	}
	return list
}

// formatPosition returns the id of an event's entry in a backlog.
func formatPosition(p adapter.Position) string { return feed.Entry{Ms: p.Ms, Seq: p.Seq}.ID() }

// parseID reads a stream's id.
func parseID(s string) (ms, seq uint64, err error) {
	left, right, ok := strings.Cut(s, "-")
	ms, err1 := strconv.ParseUint(left, 10, 64)
	seq, err2 := strconv.ParseUint(right, 10, 64)
	if !ok || err1 != nil || err2 != nil || seq > math.MaxUint64/feed.PerCall {
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

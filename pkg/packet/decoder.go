package packet

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// Limits of one packet, in both directions. The transport limits its size in bytes.
const (
	// MaxAttachments is the maximum number of attachments that the stock client accepts.
	MaxAttachments = 10
	// maxKeptName is the maximum length of a name that a Decoder keeps.
	maxKeptName = 200
	// MaxDepth is the maximum nesting depth of arrays and objects.
	MaxDepth = 512
	// MaxElements is the maximum number of elements of the array of an Event or an Ack, including
	// an event's name. Each takes far more memory as an argument than its two bytes of JSON.
	MaxElements = 1024
)

// A Decoder assembles the packets of one connection from the messages that arrive on it, in their
// order. The zero value is ready for use. It is not safe for concurrent use.
//
// A packet that waits for attachments is held in memory. So a peer can make the decoder keep
// MaxAttachments+1 messages of the transport's maximum size; see [Decoder.Pending].
//
// Every error is an *[Error], and after one the connection should be closed: later messages
// may belong to the packet that was refused.
type Decoder struct {
	pending   *Packet // waits for attachments; nil if none are due
	due       int     // their number
	held      int     // bytes that pending has
	namespace string  // the last one seen, to make it a string once
	event     string  // the name of the last event, for the same reason
}

// Text decodes a text message. It returns nil and no error for a packet whose attachments have not
// arrived yet. The packet keeps b, which must not be changed afterwards.
//
// An accepted packet is well-formed, so that nothing needs to check it again: Data is valid JSON of
// the kind that the type requires, an Event's name is a number or a string that is not reserved, and
// each placeholder has an attachment of its own. An Event without Data is accepted too; it has
// neither name nor arguments.
func (d *Decoder) Text(b []byte) (*Packet, error) {
	if d.pending != nil {
		d.pending = nil
		return nil, &Error{UnexpectedText}
	}
	p := &Packet{Namespace: "/"}
	due, err := d.text(p, b)
	if err != nil {
		return nil, err
	}
	if due > 0 {
		d.pending, d.due, d.held = p, due, len(b)+argBytes*len(p.Args)
		return nil, nil
	}
	return p, nil
}

// Binary takes the next attachment of the packet that Text has begun, and
// returns that packet if it was the last. It takes ownership of b.
func (d *Decoder) Binary(b []byte) (*Packet, error) {
	p := d.pending
	if p == nil {
		return nil, &Error{UnexpectedBinary}
	}
	p.Attachments = append(p.Attachments, compact(b, b))
	d.held += len(b)
	if len(p.Attachments) < d.due {
		return nil, nil
	}
	d.pending = nil
	return p, nil
}

// argBytes is the size of an element of Packet.Args.
const argBytes = 24

// Pending returns how many bytes are held of a packet that waits for attachments, including the
// slice of its arguments; 0 if none waits.
func (d *Decoder) Pending() int {
	if d.pending == nil {
		return 0
	}
	return d.held
}

// text decodes a message into p and returns how many attachments are due.
func (d *Decoder) text(p *Packet, message []byte) (due int, err error) {
	b := message
	if len(b) == 0 || b[0] < '0' || int(b[0]-'0') >= len(wire) {
		return 0, &Error{UnknownType}
	}
	row := wire[b[0]-'0']
	p.Type = row.typ
	b = b[1:]
	if row.binary {
		if due, b = cutAttachments(b); due == 0 {
			return 0, &Error{BadAttachments}
		}
	}
	if len(b) > 0 && b[0] == '/' {
		name, rest, _ := bytes.Cut(b, []byte{','})
		if !utf8.Valid(name) {
			return 0, &Error{InvalidUTF8}
		}
		p.Namespace, b = kept(&d.namespace, name), rest
	}
	p.ID, b = cutID(b)
	if len(b) == 0 {
		return due, nil
	}
	b = compact(bytes.Trim(b, space), message)
	args, found, err := split(b, row.binary)
	switch {
	case err != nil:
		return 0, err
	case strings.IndexByte(row.starts, b[0]) < 0:
		return 0, &Error{UnexpectedPayload}
	case !allRefer(found, due, true): // an attachment with ten placeholders would be forwarded ten times
		return 0, &Error{BadPlaceholder}
	}
	if p.Type == Event {
		name, err := eventName(args)
		if err != nil {
			return 0, err
		}
		p.Event, args = kept(&d.event, name), args[1:]
	}
	p.Data, p.Args = b[:len(b):len(b)], args
	return due, nil
}

// kept returns a name as a string. Most connections repeat one, so the last is kept unless it is long.
func kept(last *string, name []byte) string {
	switch {
	case string(name) == *last:
	case len(name) > maxKeptName:
		return string(name)
	default:
		*last = string(name)
	}
	return *last
}

// cutAttachments reads the count and the dash after it. It returns 0 for anything but a count from
// 1 to MaxAttachments. Unlike the reference it accepts no more than two digits: there could be any number
// of zeros.
func cutAttachments(b []byte) (n int, rest []byte) {
	for i, c := range b {
		switch {
		case c == '-':
			return n, b[i+1:]
		case c < '0' || c > '9' || i == 2:
			return 0, nil
		}
		if n = n*10 + int(c-'0'); n > MaxAttachments {
			return 0, nil
		}
	}
	return 0, nil
}

// cutID reads an ack id. Like the reference it accepts spaces as digits; unlike it, it does not
// compute with them: they are dropped, and an id of spaces alone is 0.
func cutID(b []byte) (id string, rest []byte) {
	end, spaces := 0, 0
	for ; end < len(b); end++ {
		if b[end] == ' ' {
			spaces++
		} else if b[end] < '0' || b[end] > '9' {
			break
		}
	}
	switch {
	case end == 0, end > maxID: // a longer id will be refused as a payload
		return "", b
	case spaces == 0:
		return string(b[:end]), b[end:]
	case spaces == end:
		return "0", b[end:]
	}
	return strings.ReplaceAll(string(b[:end]), " ", ""), b[end:]
}

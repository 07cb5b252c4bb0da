// Package packet translates between Socket.IO v5 packets and the messages that Engine.IO carries.
// It does no I/O: bytes in, values out.
//
// A packet is one text message, followed by one binary message for each of its attachments.
// [Decoder] turns messages into a [Packet], [Packet.AppendText] does the reverse. Payloads stay raw
// JSON in between: a Decoder checks them and splits them into arguments in one walk, without
// decoding any, as [SplitEvent] and [SplitArray] do for stored payloads. [Unmarshal] and
// [AppendArgs] convert arguments from and to Go values, with [Binary] data at any depth.
//
// The text of a packet is, with no spaces between the parts,
//
//	type [attachments "-"] [namespace ","] [id] [JSON]
//
// where the namespace is omitted if it is "/".
package packet

import (
	"encoding/json"
	"strconv"
)

// A Type is the type of a packet. Its value is the digit that the packet's text begins with if the
// packet has no attachments.
type Type uint8

// The packet types. Events and acks with attachments have other digits on the wire, but are not
// separate types.
const (
	Connect      Type = iota // requests to join a namespace, or confirms it
	Disconnect               // leaves a namespace
	Event                    // has an array as payload: a name and arguments
	Ack                      // answers the event of the same id, with an array of arguments
	ConnectError             // refuses a Connect
)

// String returns the name that the protocol has for t.
func (t Type) String() string {
	if t > ConnectError {
		return "Type(" + strconv.Itoa(int(t)) + ")"
	}
	return wire[t].name
}

// wire has a row for each digit that a packet's text can begin with.
var wire = [...]struct {
	name   string
	typ    Type
	binary bool   // has a count of attachments, which is not zero
	starts string // the bytes that the payload, if there is one, can start with
}{
	0: {name: "CONNECT", typ: Connect, starts: "{"},
	1: {name: "DISCONNECT", typ: Disconnect, starts: ""},
	2: {name: "EVENT", typ: Event, starts: "["},
	3: {name: "ACK", typ: Ack, starts: "["},
	4: {name: "CONNECT_ERROR", typ: ConnectError, starts: `{"`},
	5: {name: "BINARY_EVENT", typ: Event, binary: true, starts: "["},
	6: {name: "BINARY_ACK", typ: Ack, binary: true, starts: "["},
}

// A Packet is one Socket.IO packet.
type Packet struct {
	Type Type
	// Namespace begins with a slash; the main one is "/".
	Namespace string
	// ID is the id that an Event's Ack must repeat, as the digits that the peer sent. Empty means
	// none.
	ID string
	// Data is the payload as raw JSON; nil means none. An Event's is an array
	// whose first element is the event's name.
	Data []byte
	// Event and Args are set by a Decoder: the name of an Event, and the arguments of an Event or
	// an Ack, as sub-slices of Data. AppendText ignores them.
	Event string
	Args  []json.RawMessage
	// Attachments are the binary values that placeholders in Data refer to. Only an Event and an
	// Ack can have any.
	Attachments [][]byte
}

// AppendText appends the text part of p to b and returns the result. It must be
// sent first, then the attachments in their order, with nothing in between. It
// panics if a packet that cannot have attachments has some.
func (p *Packet) AppendText(b []byte) []byte {
	b = append(b, p.digit())
	if n := len(p.Attachments); n > 0 {
		b = strconv.AppendInt(b, int64(n), 10)
		b = append(b, '-')
	}
	if p.Namespace != "/" {
		b = append(b, p.Namespace...)
		b = append(b, ',')
	}
	b = append(b, p.ID...)
	return append(b, p.Data...)
}

func (p *Packet) digit() byte {
	for d, row := range wire {
		if row.typ == p.Type && row.binary == (len(p.Attachments) > 0) {
			return '0' + byte(d)
		}
	}
	panic("packet: " + p.Type.String() + " with " + strconv.Itoa(len(p.Attachments)) + " attachments")
}

// Reserved reports whether an event's name belongs to the protocol or to its client, so that
// applications must not emit it.
func Reserved(event string) bool {
	switch event {
	case "connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener":
		return true
	}
	return false
}

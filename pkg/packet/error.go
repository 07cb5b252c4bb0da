package packet

// A Reason says why something is not a packet, or not what can stand in one.
type Reason string

// The reasons. Where a message has several faults, the first found counts.
const (
	UnknownType       Reason = "unknown packet type"
	BadAttachments    Reason = "illegal number of attachments"
	BadPlaceholder    Reason = "placeholder without an attachment of its own" // also what only looks like a placeholder, beside real ones
	UnexpectedText    Reason = "text where attachments are due"
	UnexpectedBinary  Reason = "binary message without announcement"
	InvalidJSON       Reason = "invalid JSON"
	InvalidUTF8       Reason = "invalid UTF-8"
	TooDeep           Reason = "JSON nested too deep"
	TooManyElements   Reason = "too many arguments"
	UnexpectedPayload Reason = "payload does not fit the packet type"
	ReservedEvent     Reason = "reserved event name"
)

// An Error is returned for what breaks the protocol. The reference implementation
// closes a connection on which a packet cannot be decoded.
type Error struct{ Reason Reason }

func (e *Error) Error() string { return "packet: " + string(e.Reason) }

package packet

// A Reason is the reason why data is not a packet, or not valid in a packet.
type Reason string

// The reasons. If a message has several faults, the first one found counts.
const (
	UnknownType       Reason = "unknown packet type"
	BadAttachments    Reason = "illegal number of attachments"
	BadPlaceholder    Reason = "placeholder without an attachment of its own" // also for objects that only look like placeholders, beside real ones
	UnexpectedText    Reason = "text where attachments are due"
	UnexpectedBinary  Reason = "binary message without announcement"
	InvalidJSON       Reason = "invalid JSON"
	InvalidUTF8       Reason = "invalid UTF-8"
	TooDeep           Reason = "JSON nested too deep"
	TooManyElements   Reason = "too many arguments"
	UnexpectedPayload Reason = "payload does not fit the packet type"
	ReservedEvent     Reason = "reserved event name"
)

// An Error is a violation of the protocol. The reference implementation closes a connection on
// which a packet cannot be decoded.
type Error struct{ Reason Reason }

func (e *Error) Error() string { return "packet: " + string(e.Reason) }

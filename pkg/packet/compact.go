package packet

import "bytes"

// maxID is the maximum length of an ack id. JavaScript writes larger numbers with an exponent.
const maxID = 21

// maxSlack is the memory, in bytes, that a packet may keep beside a quarter of its payload.
const maxSlack = 1 << 10

// compact returns a part of a message, or a copy of it if the message takes far more memory: it may
// be padded, and it is kept as long as the part.
func compact(part, message []byte) []byte {
	if cap(message)-len(part) > len(part)/4+maxSlack {
		return bytes.Clone(part)
	}
	return part
}

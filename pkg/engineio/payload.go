package engineio

import (
	"bytes"
	"encoding/base64"
)

// separator separates the packets of a polling body.
const separator = "\x1e"

// cutPacket splits the first packet off a polling body. rest is nil after the
// last one.
func cutPacket(body []byte) (packet, rest []byte) {
	i := bytes.IndexByte(body, separator[0])
	if i < 0 {
		return body, nil
	}
	return body[:i:i], body[i+1:]
}

// decode splits a packet in its text form into its type and its data. The data of a binary message
// is decoded into new memory, other data is part of packet, which is known to be UTF-8.
func decode(packet []byte) (kind byte, data []byte, err error) {
	if len(packet) == 0 {
		return 0, nil, errBadPacket
	}
	kind, data = packet[0], packet[1:]
	switch kind {
	case typeOpen, typeClose, typePing, typePong, typeMessage, typeUpgrade, typeNoop:
		return kind, data, nil
	case typeBinary:
		data, err = base64.StdEncoding.AppendDecode([]byte{}, data) // empty is not nil
		if err != nil {
			return 0, nil, errBadPacket
		}
		return kind, data, nil
	default:
		return 0, nil, errBadPacket
	}
}

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Opcodes and header bits of RFC 6455, section 5.2.
const (
	finText  = 0x81
	finClose = 0x88
	masked   = 0x80
	len16    = 126
	len64    = 127
)

// frame returns the message in the frame that data begins with, and the
// frame's size, which is 0 if data ends before the frame does.
func frame(data []byte) (message []byte, size int, err error) {
	if len(data) < 2 {
		return nil, 0, nil
	}
	switch data[0] {
	case finText:
	case finClose:
		return nil, 0, errors.New("server closed the connection")
	default:
		return nil, 0, fmt.Errorf("frame that begins with %#x, not expected of a server", data[0])
	}
	head, length := 2, int(data[1])
	switch length {
	case len16:
		head = 4
		if len(data) < head {
			return nil, 0, nil
		}
		length = int(binary.BigEndian.Uint16(data[2:]))
	case len64:
		return nil, 0, errors.New("frame of 64 KiB or more, not expected here")
	}
	if len(data) < head+length {
		return nil, 0, nil
	}
	return data[head : head+length], head + length, nil
}

// appendFrame appends message, of less than 64 KiB, as a client's frame. Its
// masking key is zero: the server must unmask all the same, the load need not mask.
func appendFrame(b, message []byte) []byte {
	if len(message) < len16 {
		b = append(b, finText, masked|byte(len(message)))
	} else {
		b = append(b, finText, masked|len16)
		b = binary.BigEndian.AppendUint16(b, uint16(len(message)))
	}
	b = append(b, 0, 0, 0, 0)
	return append(b, message...)
}

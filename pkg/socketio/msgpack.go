package socketio

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// msgpackMessage is the refusal sent to clients with the MessagePack parser.
const msgpackMessage = "This server does not support the MessagePack parser: use the client's default parser"

// msgpackConnect returns the namespace of a CONNECT in the encoding of socket.io-msgpack-parser,
// which sends each packet as a map in a binary message: with its type first and its namespace last,
// as the JavaScript and Python clients do.
func msgpackConnect(data []byte) (namespace string, ok bool) {
	const start, key = "\xa4type\x00", "\xa3nsp"                                             // fixstr "type" and fixint 0; fixstr "nsp"
	if len(data) == 0 || data[0]&0xF0 != 0x80 || !bytes.HasPrefix(data[1:], []byte(start)) { // fixmap
		return "", false
	}
	at := bytes.LastIndex(data, []byte(key))
	if at < 0 {
		return "", false
	}
	value := data[at+len(key):]
	n := 0
	switch {
	case len(value) >= 1 && value[0]&0xE0 == 0xA0: // fixstr
		n, value = int(value[0]&0x1F), value[1:]
	case len(value) >= 2 && value[0] == 0xD9: // str 8
		n, value = int(value[1]), value[2:]
	}
	if n == 0 || n != len(value) || n > maxNamespaceName || value[0] != '/' || !utf8.Valid(value) {
		return "", false
	}
	return string(value), true
}

// msgpackRefusal returns a CONNECT_ERROR in the same encoding.
func msgpackRefusal(namespace string) []byte {
	b := append([]byte(nil), "\x83\xa4type\x04\xa4data\x81\xa7message"...) // maps of 3 and 1; fixint 4
	b = appendMsgpackString(b, msgpackMessage)
	b = append(b, "\xa3nsp"...)
	return appendMsgpackString(b, namespace)
}

func appendMsgpackString(b []byte, s string) []byte {
	b = append(b, 0xDA) // str 16
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

package engineio

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzPayload decodes arbitrary polling bodies: an accepted body can be split without loss,
// and its messages were checked.
func FuzzPayload(f *testing.F) {
	for _, seed := range []string{
		"", "4", "4hello", "4a\x1e4b", "bAQL/", "4a\x1ebAQI=\x1e2", "0{}\x1e1\x1e3probe\x1e5\x1e6", "\x1e", "4a\x1e", "\x1e4a",
		"b", "b=", "b\nAA==", "9", "4\xff", "4\u2028\x1e4\U0001F600",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if !utf8.Valid(body) {
			return // refused as a whole
		}
		var again [][]byte
		for rest := body; ; {
			packet, next := cutPacket(rest)
			if bytes.IndexByte(packet, separator[0]) >= 0 {
				t.Fatalf("%q holds a separator", packet)
			}
			kind, data, err := decode(packet)
			switch {
			case err != nil:
				if data != nil {
					t.Fatalf("%q is refused, and yet data", packet)
				}
			case kind == typeBinary:
				if p := Binary(data).polling(); !sameBase64(p, packet) {
					t.Fatalf("%q becomes %q", packet, p)
				}
			case !bytes.Equal(append([]byte{kind}, data...), packet):
				t.Fatalf("%q becomes %c %q", packet, kind, data)
			}
			again = append(again, packet)
			if next == nil {
				break
			}
			rest = next
		}
		if joined := bytes.Join(again, []byte(separator)); !bytes.Equal(joined, body) {
			t.Fatalf("%q becomes %q", body, joined)
		}
	})
}

// sameBase64 compares binary packets but for line breaks, and for bits behind
// the end, which decoders ignore.
func sameBase64(a, b []byte) bool {
	da, erra := base64.StdEncoding.DecodeString(string(a[1:]))
	db, errb := base64.StdEncoding.DecodeString(string(b[1:]))
	return erra == nil && errb == nil && bytes.Equal(da, db)
}

func TestPollingBody(t *testing.T) {
	large := strings.Repeat("x", smallFrame)
	for want, ps := range map[string][]*Packet{
		"2":                                 {pingPacket},
		"4a\x1ebYg==\x1e2":                  {Text([]byte("a")), Binary([]byte("b")), pingPacket},
		"4" + large + "\x1e4" + large:       {Text([]byte(large)), Text([]byte(large))},
		"2\x1e4" + large + "\x1e4a\x1e4b":   {pingPacket, Text([]byte(large)), Text([]byte("a")), Text([]byte("b"))},
		"4a\x1e4" + large + "\x1e4" + large: {Text([]byte("a")), Text([]byte(large)), Text([]byte(large))},
	} {
		var body bytes.Buffer
		b := &batch{packets: ps}
		if _, err := b.buffers((*Packet).polling, separator).WriteTo(&body); err != nil || body.String() != want {
			t.Errorf("got %q, %v, want %q", body.String(), err, want)
		}
	}
}

package packet

import (
	"bytes"
	"strings"
	"testing"
)

// A packet keeps little more memory than its payload, even if its message is padded or has a larger
// buffer.
func TestPacketsKeepNoPadding(t *testing.T) {
	pad := strings.Repeat(" \t\r\n", 1000)
	for _, c := range []struct {
		name    string
		text    string
		buffer  int // beyond the text
		data    string
		aliases bool
	}{
		{"plain", `2["echo"]`, 0, `["echo"]`, true},
		{"small buffer", `2["echo"]`, 500, `["echo"]`, true},
		{"large buffer", `2["echo"]`, 4000, `["echo"]`, false},
		{"space in front", `2` + pad + `["echo"]`, 0, `["echo"]`, false},
		{"space behind", `2["echo"]` + pad, 0, `["echo"]`, false},
		{"space around", `21` + pad + `["echo"]` + pad, 0, `["echo"]`, false},
		{"a long namespace", "2/" + strings.Repeat("x", 3000) + `,["echo"]`, 0, `["echo"]`, false},
		{"a large payload", `2["echo","` + strings.Repeat("x", 20_000) + `"]`, 5000, "", true},
		{"a large payload in half of a buffer", `2["echo","` + strings.Repeat("x", 20_000) + `"]`, 19_000, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			message := append(make([]byte, 0, len(c.text)+c.buffer), c.text...)
			var d Decoder
			p, err := d.Text(message)
			if err != nil {
				t.Fatal(err)
			}
			want := bytes.Clone(p.Data)
			if c.data != "" && string(want) != c.data {
				t.Errorf("payload %q", want)
			}
			clear(message)
			if aliases := !bytes.Equal(p.Data, want); aliases != c.aliases {
				t.Errorf("the message is kept: %v, want %v", aliases, c.aliases)
			}
		})
	}
	t.Run("space alone", func(t *testing.T) {
		var d Decoder
		if _, err := d.Text([]byte("2" + pad)); err == nil {
			t.Error("it is a payload")
		}
	})
	t.Run("attachment", func(t *testing.T) {
		var d Decoder
		if _, err := d.Text([]byte(`51-["a",{"_placeholder":true,"num":0}]`)); err != nil {
			t.Fatal(err)
		}
		p, err := d.Binary(make([]byte, 1000, 5000))
		if err != nil || cap(p.Attachments[0]) > 2000 {
			t.Errorf("%v, %d bytes are kept, want at most 2000", err, cap(p.Attachments[0]))
		}
	})
}

// An id has at most 21 characters.
func TestLongIDs(t *testing.T) {
	for _, c := range []struct {
		id string
		ok bool
	}{
		{"18446744073709551615", true},
		{strings.Repeat("9", 21), true},
		{strings.Repeat("7", 22), false},
		{strings.Repeat("7", 1e6), false},
		{"5" + strings.Repeat(" ", 1e6), false},
		{strings.Repeat(" ", 1e6) + "5", false},
	} {
		for _, text := range []string{"2" + c.id + `["a"]`, "3" + c.id + "[]", "2" + c.id, "51-" + c.id + `["a"]`} {
			var d Decoder
			if p, err := d.Text([]byte(text)); (err == nil) != c.ok {
				t.Errorf("%.40q, %d bytes: %v, %v", text, len(text), p != nil, err)
			}
		}
	}
}

// A number of attachments has at most two digits, or there could be any number of zeros.
func TestZerosBeforeTheNumberOfAttachments(t *testing.T) {
	for count, ok := range map[string]bool{"1": true, "01": true, "001": false, strings.Repeat("0", 500_000) + "1": false} {
		var d Decoder
		if _, err := d.Text([]byte("5" + count + `-["a",{"_placeholder":true,"num":0}]`)); (err == nil) != ok {
			t.Errorf("%.20q, %d digits: %v", count, len(count), err)
		}
	}
}

package packet

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestConversations plays testdata/conversations. Each file is one connection: "> text" and
// ">> hex" are messages that arrive, and the line after each is the decoder's result: "..."
// if it waits, "! reason", or a packet as type, namespace, id, data and attachments, with
// "-" for empty parts.
func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/conversations/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no conversations", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			play(t, string(text))
		})
	}
}

func play(t *testing.T, conversation string) {
	var d Decoder
	heard := "" // the decoder's result for the last message
	n := 0
	for line := range strings.Lines(conversation) {
		n++
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
		case strings.HasPrefix(line, ">>"):
			data, err := hex.DecodeString(strings.ReplaceAll(line[2:], " ", ""))
			if err != nil {
				t.Fatalf("line %d: %v", n, err)
			}
			heard = describe(d.Binary(data))
		case line[0] == '>':
			heard = describe(d.Text([]byte(strings.TrimPrefix(line, "> "))))
		case line != heard:
			t.Errorf("line %d:\n got %s\nwant %s", n, heard, line)
		}
	}
}

func describe(p *Packet, err error) string {
	var e *Error
	switch {
	case errors.As(err, &e):
		return "! " + string(e.Reason)
	case p == nil:
		return "..."
	}
	dash := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	s := fmt.Sprintf("%v %s %s %s", p.Type, p.Namespace, dash(p.ID), dash(string(p.Data)))
	for _, a := range p.Attachments {
		s += " " + dash(hex.EncodeToString(a))
	}
	return s
}

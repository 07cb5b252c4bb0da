package packet

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

var (
	smallEvent  = []byte(`2/chat,12["message",{"room":"lobby","text":"hello, world"},42]`)
	binaryEvent = []byte(`51-["upload",{"name":"a.png","content":{"_placeholder":true,"num":0}}]`)
	largeEvent  = []byte(`2["list",[` + strings.Repeat(`{"id":12345,"name":"somebody","tags":["a","b"]},`, 2000) + `null]]`)

	// sink keeps results alive, so that the compiler cannot put them on the stack.
	sink any
)

// The number of allocations is fixed; each is for a value that outlives the call.
func TestAllocations(t *testing.T) {
	var d Decoder
	decoded, err := d.Text(smallEvent)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 0, 256)
	args := []any{"message", 42, true, nil, map[string]any{"text": "hello"}, []any{1, "<"}}
	attachment := []byte{1}
	tests := []struct {
		name string
		want float64
		f    func()
	}{
		{"decode: the packet, its id and its arguments", 3, func() { sink, _ = d.Text(smallEvent) }},
		{"decode with attachment: the packet, the arguments, the placeholders, the attachments", 4, func() {
			_, _ = d.Text(binaryEvent)
			sink, _ = d.Binary(attachment)
		}},
		{"split: the name and the arguments", 2, func() { _, elements, _ = SplitEvent(decoded.Data) }},
		{"encode", 0, func() { buf = decoded.AppendText(buf[:0]) }},
		{"append a string", 0, func() { buf = AppendString(buf[:0], "message") }},
		{"append scalars", 0, func() { buf, _, _ = AppendArgs(buf[:0], args[:4]...) }},
	}
	for _, test := range tests {
		if got := testing.AllocsPerRun(100, test.f); got > test.want {
			t.Errorf("%s: %v allocations, want %v", test.name, got, test.want)
		}
	}
}

var elements []json.RawMessage

func BenchmarkDecode(b *testing.B) {
	for _, text := range [][]byte{smallEvent, largeEvent} {
		b.Run(fmt.Sprint(len(text)), func(b *testing.B) {
			var d Decoder
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				sink, _ = d.Text(text)
			}
		})
	}
}

func BenchmarkDecodeBinary(b *testing.B) {
	var d Decoder
	attachment := make([]byte, 1000)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = d.Text(binaryEvent)
		sink, _ = d.Binary(attachment)
	}
}

func BenchmarkSplitEvent(b *testing.B) {
	data := []byte(`["message",{"room":"lobby","text":"hello, world"},42]`)
	b.ReportAllocs()
	for b.Loop() {
		_, elements, _ = SplitEvent(data)
	}
}

func BenchmarkAppendText(b *testing.B) {
	p := Packet{Type: Event, Namespace: "/chat", ID: "12", Data: []byte(`["message","hello, world"]`)}
	buf := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		buf = p.AppendText(buf[:0])
	}
}

func BenchmarkAppendArgs(b *testing.B) {
	type message struct {
		Room, Text string
		Image      Binary
	}
	for name, args := range map[string][]any{
		"scalars": {"message", 42, true},
		"map":     {"message", map[string]any{"room": "lobby", "text": "hello, world"}},
		"struct":  {"message", message{Room: "lobby", Text: "hello, world"}},
		"bytes":   {"message", make([]byte, 1000)},
		"deep":    {"message", message{Image: make(Binary, 1000)}},
	} {
		b.Run(name, func(b *testing.B) {
			buf := make([]byte, 0, 4096)
			b.ReportAllocs()
			for b.Loop() {
				buf, _, _ = AppendArgs(buf[:0], args...)
			}
		})
	}
}

func BenchmarkUnmarshal(b *testing.B) {
	attachments := [][]byte{make([]byte, 1000)}
	for name, raw := range map[string]string{"bytes": ph(0), "deep": `{"content":` + ph(0) + `}`} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var v any
				_ = Unmarshal([]byte(raw), attachments, &v)
				sink = v
			}
		})
	}
}

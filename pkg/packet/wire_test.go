package packet

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unsafe"
)

// decode passes text and the attachments that it requires to a decoder.
func decode(text string) (*Packet, error) {
	var d Decoder
	p, err := d.Text([]byte(text))
	for p == nil && err == nil {
		p, err = d.Binary([]byte{byte(d.due)})
	}
	return p, err
}

// accepted are valid texts, with their packets.
var accepted = []struct {
	text string
	want Packet // without Attachments
}{
	{`0`, Packet{Type: Connect, Namespace: "/"}},
	{`0{}`, Packet{Type: Connect, Namespace: "/", Data: []byte(`{}`)}},
	{`0{"token":"x"}`, Packet{Type: Connect, Namespace: "/", Data: []byte(`{"token":"x"}`)}},
	{`0/admin`, Packet{Type: Connect, Namespace: "/admin"}},
	{`0/admin,`, Packet{Type: Connect, Namespace: "/admin"}},
	{`0/admin,{}`, Packet{Type: Connect, Namespace: "/admin", Data: []byte(`{}`)}},
	{`0/,{}`, Packet{Type: Connect, Namespace: "/", Data: []byte(`{}`)}},
	{`0/a?b=1,{}`, Packet{Type: Connect, Namespace: "/a?b=1", Data: []byte(`{}`)}},
	{`0/ä b`, Packet{Type: Connect, Namespace: "/ä b"}},
	{`1`, Packet{Type: Disconnect, Namespace: "/"}},
	{`1/admin,`, Packet{Type: Disconnect, Namespace: "/admin"}},
	{`2`, Packet{Type: Event, Namespace: "/"}},
	{`2["a"]`, Packet{Type: Event, Namespace: "/", Data: []byte(`["a"]`)}},
	{`2["connection"]`, Packet{Type: Event, Namespace: "/", Data: []byte(`["connection"]`)}},
	{`2["error"]`, Packet{Type: Event, Namespace: "/", Data: []byte(`["error"]`)}},
	{`2[1.5]`, Packet{Type: Event, Namespace: "/", Data: []byte(`[1.5]`)}},
	{`2[-0,null]`, Packet{Type: Event, Namespace: "/", Data: []byte(`[-0,null]`)}},
	{`2["a","<&>` + "\u2028" + `"]`, Packet{Type: Event, Namespace: "/", Data: []byte(`["a","<&>` + "\u2028" + `"]`)}},
	{"2[\"a\"]\r\n\t ", Packet{Type: Event, Namespace: "/", Data: []byte(`["a"]`)}},
	{`2/a["x"]`, Packet{Type: Event, Namespace: `/a["x"]`}},
	{`2/a,7["x"]`, Packet{Type: Event, Namespace: "/a", ID: "7", Data: []byte(`["x"]`)}},
	{`2007["x"]`, Packet{Type: Event, Namespace: "/", ID: "007", Data: []byte(`["x"]`)}},
	{`2 ["x"]`, Packet{Type: Event, Namespace: "/", ID: "0", Data: []byte(`["x"]`)}},
	{`2 1 2 ["x"]`, Packet{Type: Event, Namespace: "/", ID: "12", Data: []byte(`["x"]`)}},
	{`2999999999999999999999["x"]`, Packet{Type: Event, Namespace: "/", ID: "999999999999999999999", Data: []byte(`["x"]`)}},
	{`2["a",{"_placeholder":true,"num":9}]`, Packet{Type: Event, Namespace: "/", Data: []byte(`["a",{"_placeholder":true,"num":9}]`)}},
	{`2["a"` + nest(MaxDepth-1) + `]`, Packet{Type: Event, Namespace: "/", Data: []byte(`["a"` + nest(MaxDepth-1) + `]`)}},
	{`2["a"` + strings.Repeat(`,[{}]`, MaxDepth) + `]`, Packet{Type: Event, Namespace: "/", Data: []byte(`["a"` + strings.Repeat(`,[{}]`, MaxDepth) + `]`)}},
	{`3`, Packet{Type: Ack, Namespace: "/"}},
	{`37`, Packet{Type: Ack, Namespace: "/", ID: "7"}},
	{`37[]`, Packet{Type: Ack, Namespace: "/", ID: "7", Data: []byte(`[]`)}},
	{`37[{"ok":true}]`, Packet{Type: Ack, Namespace: "/", ID: "7", Data: []byte(`[{"ok":true}]`)}},
	{`4"no"`, Packet{Type: ConnectError, Namespace: "/", Data: []byte(`"no"`)}},
	{`4/a,{"message":"no"}`, Packet{Type: ConnectError, Namespace: "/a", Data: []byte(`{"message":"no"}`)}},
	{`51-["a"]`, Packet{Type: Event, Namespace: "/", Data: []byte(`["a"]`)}},
	{`51-`, Packet{Type: Event, Namespace: "/"}},
	{`502-["a",{"_placeholder":true,"num":1}]`, Packet{Type: Event, Namespace: "/", Data: []byte(`["a",{"_placeholder":true,"num":1}]`)}},
	{`51-["a",{"_placeholder":1,"num":9}]`, Packet{Type: Event, Namespace: "/", Data: []byte(`["a",{"_placeholder":1,"num":9}]`)}},
	{`510-["a"]`, Packet{Type: Event, Namespace: "/", Data: []byte(`["a"]`)}},
	{`61-/a,7[{"_placeholder":true,"num":0}]`, Packet{Type: Ack, Namespace: "/a", ID: "7", Data: []byte(`[{"_placeholder":true,"num":0}]`)}},
}

// refused are invalid texts, with the reasons.
var refused = []struct {
	text   string
	reason Reason
}{
	{``, UnknownType},
	{`7`, UnknownType},
	{`9["a"]`, UnknownType},
	{`x`, UnknownType},
	{`-1`, UnknownType},

	{`0[]`, UnexpectedPayload},
	{`0"x"`, UnexpectedPayload},
	{`0null`, UnexpectedPayload},
	{`0/a,1.5`, InvalidJSON}, // 1 is an id, .5 is nothing
	{`1{}`, UnexpectedPayload},
	{`1/a,[]`, UnexpectedPayload},
	{`2{}`, UnexpectedPayload},
	{`2"a"`, UnexpectedPayload},
	{`2[]`, UnexpectedPayload},
	{`2[ ]`, UnexpectedPayload},
	{`2[null]`, UnexpectedPayload},
	{`2[true]`, UnexpectedPayload},
	{`2[["a"]]`, UnexpectedPayload},
	{`2[{}]`, UnexpectedPayload},
	{`30{}`, UnexpectedPayload},
	{`30"x"`, UnexpectedPayload},
	{`4[]`, UnexpectedPayload},
	{`4null`, UnexpectedPayload},

	{`2["connect"]`, ReservedEvent},
	{`2["connect_error"]`, ReservedEvent},
	{`2["disconnect"]`, ReservedEvent},
	{`2["disconnecting"]`, ReservedEvent},
	{`2["newListener"]`, ReservedEvent},
	{`2["removeListener"]`, ReservedEvent},
	{`2[ "\u0063onnect" ]`, ReservedEvent},
	{`51-["connect"]`, ReservedEvent},

	{`2["a"]x`, InvalidJSON},
	{`2["echo",1]garbage`, InvalidJSON},
	{`2["a"`, InvalidJSON},
	{`2["a",]`, InvalidJSON},
	{`2["a" "b"]`, InvalidJSON},
	{`2["a",01]`, InvalidJSON},
	{`2["a",1.]`, InvalidJSON},
	{`2["a",1e]`, InvalidJSON},
	{`2["a",-]`, InvalidJSON},
	{`2["a",nul]`, InvalidJSON},
	{`2["a",NaN]`, InvalidJSON},
	{`2["a",{"b"}]`, InvalidJSON},
	{`2["a",{"b":1,}]`, InvalidJSON},
	{`2["a",{b:1}]`, InvalidJSON},
	{`2["a",'b']`, InvalidJSON},
	{`2["\x"]`, InvalidJSON},
	{`2["\u12G4"]`, InvalidJSON},
	{"2[\"a\n\"]", InvalidJSON},
	{"2[\"a\"]\u00a0", InvalidJSON},
	{"\ufeff2[\"a\"]", UnknownType},
	{"2[\"\xff\"]", InvalidUTF8},
	{"0/\xff", InvalidUTF8},
	{"0{\"a\":[\"\xff\"]}", InvalidUTF8},
	{"2[\"a\",{\"\xff\":1}]", InvalidUTF8},
	{"2[\"\xc3\",\"\xa4\"]", InvalidUTF8},
	{"2[\"\xed\xa0\x80\"]", InvalidUTF8},
	{`2["a"` + nest(MaxDepth) + `]`, TooDeep},
	{`2["a"` + strings.Repeat(",1", MaxElements) + `]`, TooManyElements},
	{`31[1` + strings.Repeat(",1", MaxElements) + `]`, TooManyElements},
	{`61-1[{"_placeholder":true,"num":0}` + strings.Repeat(",1", MaxElements) + `]`, TooManyElements},
	{`2` + strings.Repeat(`[`, 1e6), TooDeep},

	{`5["a"]`, BadAttachments},
	{`50-["a"]`, BadAttachments},
	{`5-["a"]`, BadAttachments},
	{`5x-["a"]`, BadAttachments},
	{`5-1-["a"]`, BadAttachments},
	{`5 1-["a"]`, BadAttachments},
	{`51`, BadAttachments},
	{`51/a,["a"]`, BadAttachments},
	{`511-["a"]`, BadAttachments},
	{`599999999999999999999-["a"]`, BadAttachments},
	{`60-[]`, BadAttachments},

	{`51-["a",{"_placeholder":true,"num":1}]`, BadPlaceholder},
	{`51-["a",{"_placeholder":true,"num":-1}]`, BadPlaceholder},
	{`51-["a",{"_placeholder":true,"num":0.5}]`, BadPlaceholder},
	{`51-["a",{"_placeholder":true,"num":1e999}]`, BadPlaceholder},
	{`51-["a",{"_placeholder":true,"num":"0"}]`, BadPlaceholder},
	{`51-["a",{"_placeholder":true}]`, BadPlaceholder},
	{`51-["a",[{"b":{"num":7,"\u005fplaceholder":true}}]]`, BadPlaceholder},
	{`51-["a",{"_placeholder":true,"num":0,"num":1}]`, BadPlaceholder},
	{`51-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]`, BadPlaceholder},
	{`52-["a",{"_placeholder":true,"num":0},[{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]]`, BadPlaceholder},
	{`51-[{"_placeholder":true,"num":0}]`, UnexpectedPayload},
}

// nest returns ",[[…]]" with depth brackets.
func nest(depth int) string {
	return "," + strings.Repeat("[", depth) + strings.Repeat("]", depth)
}

// short keeps the names of subtests readable.
func short(s string) string { return s[:min(len(s), 60)] }

func TestAccepted(t *testing.T) {
	for _, test := range accepted {
		t.Run(short(test.text), func(t *testing.T) {
			p, err := decode(test.text)
			if err != nil {
				t.Fatal(err)
			}
			got := *p
			got.Attachments = nil
			wantSplit(t, p)
			if !same(&got, &test.want) || (got.Data == nil) != (test.want.Data == nil) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

// wantSplit checks the name and the arguments of a decoded packet against its Data.
func wantSplit(t *testing.T, p *Packet) {
	t.Helper()
	var elems []json.RawMessage
	if p.Type == Event || p.Type == Ack {
		if p.Data != nil {
			if err := json.Unmarshal(p.Data, &elems); err != nil {
				t.Fatal(err)
			}
		}
	}
	name := ""
	if p.Type == Event && p.Data != nil {
		if name = string(numberName(elems[0])); elems[0][0] == '"' {
			if err := json.Unmarshal(elems[0], &name); err != nil {
				t.Fatal(err)
			}
		}
		elems = elems[1:]
	}
	if p.Event != name || len(p.Args) != len(elems) {
		t.Fatalf("%s was split into %q and %q", p.Data, p.Event, p.Args)
	}
	for i, arg := range p.Args {
		if !bytes.Equal(arg, elems[i]) || cap(arg) != len(arg) {
			t.Errorf("%s: argument %d is %s, of %d bytes", p.Data, i, arg, cap(arg))
		}
	}
}

// TestDecoderCopiesNothing: arguments are parts of the message.
func TestDecoderCopiesNothing(t *testing.T) {
	var d Decoder
	text := []byte(` 2["a",1,{"b":"c"}] `)[1:]
	p, err := d.Text(text)
	if err != nil {
		t.Fatal(err)
	}
	text[6], text[14] = '2', 'd'
	if string(p.Args[0]) != `2` || string(p.Args[1]) != `{"b":"d"}` {
		t.Errorf("the arguments are copies: %s", p.Args)
	}
}

// TestDecoderRepeatsNames: the name of the last event is kept, and the next one is not confused
// with it.
func TestDecoderRepeatsNames(t *testing.T) {
	var d Decoder
	long := strings.Repeat("n", maxKeptName+1)
	for _, name := range []string{"a", "a", "b", "", long, "b", long, long, "7"} {
		p, err := d.Text([]byte(`2["` + name + `"]`))
		if err != nil || p.Event != name {
			t.Fatalf("got %.20q, %v, want %.20q", p.Event, err, name)
		}
		if len(d.event) > maxKeptName {
			t.Fatalf("a name of %d bytes is kept, want at most %d", len(d.event), maxKeptName)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, test := range refused {
		t.Run(short(test.text), func(t *testing.T) {
			p, err := decode(test.text)
			var e *Error
			if !errors.As(err, &e) || e.Reason != test.reason || p != nil {
				t.Errorf("got %v, %v, want %q", p, err, test.reason)
			}
		})
	}
}

// Every row of the wire table is encoded and decoded, with and without each part.
func TestWireRows(t *testing.T) {
	for text, row := range wireTexts() {
		p, err := decode(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if p.Type != row || p.Type.String() == "" {
			t.Errorf("%s: type %v, want %v", text, p.Type, row)
		}
		if got := string(p.AppendText([]byte("4"))); got != "4"+text {
			t.Errorf("%s: encoded as %s, want %s", text, got, "4"+text)
		}
	}
}

// wireTexts makes packets in their canonical form from the wire table.
func wireTexts() map[string]Type {
	payloads := map[byte]string{'{': `{"a":1}`, '[': `["a",{"b":[1.5,null,"ü"]}]`, '"': `"a"`}
	texts := make(map[string]Type)
	for digit, row := range wire {
		head := string(rune('0' + digit))
		if row.binary {
			head += "2-"
		}
		for _, namespace := range []string{"", "/admin,"} {
			for _, id := range []string{"", "0", "1234"} {
				texts[head+namespace+id] = row.typ
				for _, first := range []byte(row.starts) {
					texts[head+namespace+id+payloads[first]] = row.typ
				}
			}
		}
	}
	return texts
}

func TestAppendTextPanicsOnImpossiblePacket(t *testing.T) {
	for _, p := range []Packet{{Type: Connect, Attachments: make([][]byte, 1)}, {Type: 9}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v was encoded", p)
				}
			}()
			p.AppendText(nil)
		}()
	}
}

// same reports whether two packets are equal.
func same(p, q *Packet) bool {
	if len(p.Attachments) != len(q.Attachments) {
		return false
	}
	for i := range p.Attachments {
		if !bytes.Equal(p.Attachments[i], q.Attachments[i]) {
			return false
		}
	}
	return p.Type == q.Type && p.Namespace == q.Namespace && p.ID == q.ID && bytes.Equal(p.Data, q.Data)
}

// TestDecoderKeepsNoLongName: the decoder keeps nothing large of returned packets.
func TestDecoderKeepsNoLongName(t *testing.T) {
	var d Decoder
	name := "/" + strings.Repeat("n", 1<<20)
	if p, err := d.Text([]byte("0" + name)); err != nil || p.Namespace != name {
		t.Fatal(err)
	}
	if p, err := d.Text([]byte("0/short")); err != nil || p.Namespace != "/short" || d.namespace != "/short" {
		t.Fatal(err)
	}
	if p, err := d.Text([]byte("0" + name)); err != nil || p.Namespace != name || len(d.namespace) > maxKeptName {
		t.Errorf("%v, a name of %d bytes is kept", err, len(d.namespace))
	}
}

// TestDecoderPending: a packet that waits for attachments is counted until they have
// arrived.
func TestDecoderPending(t *testing.T) {
	var d Decoder
	text := []byte(`52-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`)
	waits := len(text) + 2*int(unsafe.Sizeof(json.RawMessage{}))
	for _, step := range []struct {
		message []byte
		binary  bool
		want    int
	}{{text, false, waits}, {make([]byte, 1000), true, waits + 1000}, {make([]byte, 10), true, 0}, {text, false, waits}, {text, false, 0}} {
		if step.binary {
			_, _ = d.Binary(step.message)
		} else {
			_, _ = d.Text(step.message)
		}
		if got := d.Pending(); got != step.want {
			t.Errorf("%d are pending, want %d", got, step.want)
		}
	}
}

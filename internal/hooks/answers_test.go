package hooks

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/auth"
)

func TestVerdicts(t *testing.T) {
	for text, want := range map[string]*Verdict{
		`{}`: {},
		`{"user":"ann","rooms":["a"],"can":{"join":["x*"]},"data":{"a":1},"expires":1893456000,"good":60}`: {
			User: "ann", Rooms: []string{"a"}, Can: &auth.Permissions{Join: []string{"x*"}}, Data: json.RawMessage(`{"a":1}`),
			Expires: time.Unix(1893456000, 0), Good: time.Minute,
		},
		`{"user":null,"rooms":null,"can":null,"data":null,"expires":null,"good":null}`: {},
		`{"good":999999999999999999}`: {Good: maxGood},
		`{"user":""}`:                 nil,
		`{"user":7}`:                  nil,
		`{"user":"` + strings.Repeat("x", 201) + `"}`: nil,
		`{"User":"ann"}`:                   nil,
		`{"user":"ann","user":"bob"}`:      nil,
		`{"rooms":"a"}`:                    nil,
		`{"rooms":[""]}`:                   nil,
		`{"rooms":["user:bob"]}`:           nil,
		`{"can":{"jion":["*"]}}`:           nil,
		`{"can":{"join":["*"],"join":[]}}`: nil,
		`{"can":[]}`:                       nil,
		`{"expires":"tomorrow"}`:           nil,
		`{"expires":0}`:                    nil,
		`{"expires":1.5}`:                  nil,
		`{"expires":9223372036854775807}`:  nil,
		`{"good":-1}`:                      nil,
		`{"admin":true}`:                   nil,
		"{\"user\":\"\xff\"}":              nil,
		`{"rooms":[` + strings.Repeat(`"a",`, 100) + `"b"]}`: nil,
	} {
		got, record, err := parseVerdict([]byte(text))
		if (err == nil) != (want != nil) {
			t.Errorf("%.100s: %v", text, err)
			continue
		}
		if want == nil {
			continue
		}
		if !reflect.DeepEqual(got, *want) {
			t.Errorf("%.100s: got %+v, want %+v", text, got, *want)
		}
		if (record != nil) != (want.Good > 0) {
			t.Errorf("%.100s: record %s", text, record)
		}
		if record == nil {
			continue
		}
		again, err := ReadVerdict(record)
		want.Data = nil
		if err != nil || !reflect.DeepEqual(again, *want) {
			t.Errorf("%.100s: read again %+v, %v, want %+v", text, again, err, *want)
		}
	}
}

func TestReplies(t *testing.T) {
	raw := func(text string) json.RawMessage { return json.RawMessage(text) }
	for text, want := range map[string]*Reply{
		`{}`:           {},
		`{"ack":[]}`:   {Ack: []json.RawMessage{}},
		`{"ack":null}`: {},
		`{"leave":["a"],"join":["b"],"data":null,"ack":[{"x":1},2],"disconnect":true}`: {
			Leave: []string{"a"}, Join: []string{"b"}, Data: raw(`null`), Ack: []json.RawMessage{raw(`{"x":1}`), raw(`2`)}, Disconnect: true,
		},
		`{"error":{"code":"sold_out","message":"Sorry"}}`: {Error: &Refusal{"sold_out", "Sorry"}},
		`{"emits":[{"self":true,"event":"e"},{"rooms":["a"],"exceptSelf":true,"event":"f"}]}`: {
			Emits: []Emit{{Self: true, Body: raw(`{"event":"e"}`)}, {ExceptSelf: true, Body: raw(`{"event":"f","rooms":["a"]}`)}},
		},
		`{"error":{"code":"x"},"ack":[1]}`:   nil,
		`{"error":{"code":"x"},"data":null}`: nil,
		`{"error":{"code":"x y"}}`:           nil,
		`{"error":{}}`:                       nil,
		`{"error":{"code":"x","more":1}}`:    nil,
		`{"error":{"code":"x","message":"` + strings.Repeat("x", maxDetail+1) + `"}}`: nil,
		`{"join":["user:bob"]}`:  nil,
		`{"leave":[""]}`:         nil,
		`{"ack":{"ok":true}}`:    nil,
		`{"emits":[{"self":1}]}`: nil,
		`{"emits":[{"self":true,"exceptSelf":true,"event":"e"}]}`: nil,
		`{"emits":[{"event":"e","event":"f"}]}`:                   nil,
		`{"emits":[null]}`:                                        nil,
		`{"emits":[` + strings.Repeat(`{},`, maxEmits) + `{}]}`:   nil,
		`{"ack":[` + strings.Repeat(`1,`, maxArgs) + `1]}`:        nil,
		`{"disconnect":1}`:                                        nil,
		`{"kick":true}`:                                           nil,
	} {
		got, err := parseReply([]byte(text))
		if (err == nil) != (want != nil) {
			t.Errorf("%.100s: %v", text, err)
		} else if want != nil && !reflect.DeepEqual(got, *want) {
			t.Errorf("%.100s: got %+v, want %+v", text, got, *want)
		}
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"user":"ann","rooms":["a"],"can":{"join":["x*"]},"expires":1893456000,"good":60}`))
	f.Add([]byte(`{"leave":["a"],"emits":[{"self":true,"event":"e"}],"ack":[1]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if v, record, err := parseVerdict(text); err == nil && record != nil {
			again, err := ReadVerdict(record)
			if v.Data = nil; err != nil || !reflect.DeepEqual(v, again) {
				t.Errorf("read again %+v, %v, want %+v", again, err, v)
			}
		}
		_, _ = parseReply(text)
	})
}

package redis

import (
	"reflect"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// What comes from Redis may be anybody's who can write there. What can be read
// means the same when it is written again.
func FuzzDecodeEvent(f *testing.F) {
	lobby := rooms.Room{Namespace: "/", Name: "lobby"}
	for _, e := range []adapter.Event{
		{},
		{Kind: 1, Flags: 2, Stored: true, From: "aaaa", Target: rooms.Target{To: []rooms.Room{lobby}}, Data: []byte(`["hello"]`)},
		{
			From: "bbbb", Ask: "a question", Target: rooms.Target{To: []rooms.Room{lobby}, Except: []rooms.Room{{Kind: 1, Namespace: "/chat", Name: "é"}}},
			Earlier: []adapter.Copy{{At: adapter.Position{Ms: 1 << 63, Seq: 1, Partition: 2}, To: []rooms.Room{lobby}}},
			Data:    []byte(`["two",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`), Attachments: [][]byte{{0, 255}, nil},
		},
	} {
		f.Add(string(encodeEvent(&e)))
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := decodeEvent(s)
		if err != nil {
			return
		}
		if again, err := decodeEvent(string(encodeEvent(e))); err != nil || !reflect.DeepEqual(again, e) {
			t.Errorf("%+v is read as %+v, %v", e, again, err)
		}
	})
}

func FuzzDecodeMessage(f *testing.F) {
	for _, m := range []adapter.Message{{}, {Kind: 3, From: "aaaa", ID: "an id", Data: []byte("data")}} {
		f.Add(string(encodeMessage(m)))
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := decodeMessage(s)
		if err != nil {
			return
		}
		if again, err := decodeMessage(string(encodeMessage(m))); err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("%+v is read as %+v, %v", m, again, err)
		}
	})
}

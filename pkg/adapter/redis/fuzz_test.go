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
		for copies := range 3 {
			payload, lists := encodeEvent(&e, copies)
			f.Add(string(payload), string(lists))
		}
	}
	f.Add("\x01\x00\x00\x01\x04aaaa\x00\x01\x01\x01/\x05lobby\x00\x00\x02[]\x00", "") // of version 1
	to := []rooms.Room{lobby}
	decode := func(payload, lists []byte) (*adapter.Event, error) {
		e, listed, err := decodeEvent(string(payload), to)
		if err == nil && listed {
			err = decodeLists(string(lists), e)
		}
		return e, err
	}
	f.Fuzz(func(t *testing.T, payload, lists string) {
		e, err := decode([]byte(payload), []byte(lists))
		if err != nil {
			return
		}
		e.Target.To = to // version 1 has its own
		for copies := range 3 {
			if again, err := decode(encodeEvent(e, copies)); err != nil || !reflect.DeepEqual(again, e) {
				t.Errorf("%+v is read as %+v, %v", e, again, err)
			}
		}
	})
}

func FuzzParseName(f *testing.F) {
	for _, r := range []rooms.Room{
		rooms.InEveryone("/"), rooms.InNamed("/a,b%2C%", "c,d%2C"), rooms.InOwn("/chat", "id"), rooms.InNodes(),
	} {
		f.Add(r.Namespace, uint8(r.Kind), r.Name)
	}
	f.Fuzz(func(t *testing.T, namespace string, kind uint8, own string) {
		r := rooms.Room{Namespace: namespace, Kind: rooms.Kind(kind), Name: own}
		if again, ok := parseName(name(r)); ok != (int(kind) < len(letters)) || ok && again != r {
			t.Errorf("%+v has the name %q, which is that of %+v, %v", r, name(r), again, ok)
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

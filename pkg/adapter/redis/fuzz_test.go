package redis

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis/internal/feed"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// Any program with access may write data to Redis. Decoded data has the same meaning when
// it is encoded again.
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
	f.Add("\x01\x00\x00\x01\x04aaaa\x00\x01\x01\x01/\x05lobby\x00\x00\x02[]\x00", "")   // of version 1
	f.Add("\x02\x00\x00\x00\x00\x00\x00\x00\x02[]\x7f"+strings.Repeat("\x00", 127), "") // too many attachments
	f.Add("\x02\x00\x00\x00\x00\x00\x00\x7f"+strings.Repeat("\x00", 4*127)+"\x02[]\x00", "")
	to := []rooms.Room{lobby}
	decode := func(payload, lists []byte) (*adapter.Event, error) {
		e, listed, err := decodeEvent(string(payload), to, math.MaxInt)
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
		if size := memory(e); size > 24*(len(payload)+len(lists))+512 {
			t.Errorf("%d bytes take %d, want at most %d", len(payload)+len(lists), size, 24*(len(payload)+len(lists))+512)
		}
		e.Target.To = to // version 1 has its own
		for copies := range 3 {
			if again, err := decode(encodeEvent(e, copies)); err != nil || !reflect.DeepEqual(again, e) {
				t.Errorf("%+v is read as %+v, %v, want %+v", e, again, err, e)
			}
		}
	})
}

// An event that is held keeps no message that it came in, unless that is small.
func TestDecodedEventsAreCopies(t *testing.T) {
	to := []rooms.Room{{Namespace: "/", Name: "lobby"}}
	for _, size := range []int{smallEvent + 1, 2000} {
		payload, _ := encodeEvent(&adapter.Event{
			From: "aaaa", Ask: "a question", Target: rooms.Target{To: to, Except: []rooms.Room{{Kind: 1, Namespace: "/chat", Name: "other"}}}, Data: make([]byte, size),
		}, 0)
		s := string(payload)
		e, _, err := decodeEvent(s, to, math.MaxInt)
		if err != nil {
			t.Fatal(err)
		}
		begin := uintptr(unsafe.Pointer(unsafe.StringData(s)))
		for _, part := range []string{string(e.From), e.Ask, e.Target.Except[0].Namespace, e.Target.Except[0].Name} {
			if at := uintptr(unsafe.Pointer(unsafe.StringData(part))); at >= begin && at < begin+uintptr(len(s)) {
				t.Errorf("%q of an event of %d bytes is a part of the message", part, size)
			}
		}
	}
}

// memory returns the approximate memory of an event.
func memory(e *adapter.Event) int {
	size := listsSize(e) + payloadSize(e) + len(e.From) + len(e.Ask) + roomsSize(e.Target.To)
	return size + len(e.Earlier)*int(unsafe.Sizeof(adapter.Copy{})) + len(e.Attachments)*int(unsafe.Sizeof([]byte{}))
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
			t.Errorf("%+v is read as %+v, %v, want %+v", m, again, err, m)
		}
	})
}

// FuzzStreamEntries: an entry of a room's backlog is an event at its place, or one
// that is known to be missing there.
func FuzzStreamEntries(f *testing.F) {
	lobby := rooms.Room{Namespace: "/", Name: "lobby"}
	payload, lists := encodeEvent(&adapter.Event{
		Kind: 1, Stored: true, From: "aaaa", Target: rooms.Target{To: []rooms.Room{lobby}, Except: []rooms.Room{{Kind: 1, Namespace: "/", Name: "b"}}},
		Data: []byte(`["hello"]`), Attachments: [][]byte{{1}},
	}, 2)
	f.Add("1700000000000-7", string(payload), string(lists))
	f.Add("0-18446744073709551615", string(payload), "")
	f.Add("1-18446744073709551616", "", string(lists))
	f.Add("-", "\x02\x00\x00\x03", "\x02")
	f.Add("1-2-3", "\x63", "\x63")
	f.Fuzz(func(t *testing.T, id, payload, lists string) {
		p := &partition{number: 3, limit: 10, stats: newCounters()}
		b := backlog{to: []rooms.Room{lobby}}
		p.parse(&b, id, payload, math.MaxInt)
		p.parse(&b, id, payload, 4)
		p.parse(&b, payload, "", 0)
		if len(b.events) == 2 {
			whole, bare := b.events[0], *b.events[1]
			if bare.Omitted > 0 {
				if bare.Omitted <= 4 || int(bare.Omitted) != payloadSize(whole) {
					t.Errorf("%d bytes are left out of %d", bare.Omitted, payloadSize(whole))
				}
				bare.Data, bare.Attachments, bare.Omitted = whole.Data, whole.Attachments, 0
			}
			if !reflect.DeepEqual(whole, &bare) {
				t.Errorf("%+v, without its payload %+v", whole, bare)
			}
		}
		if len(b.events)+len(b.broken) != 3 {
			t.Fatalf("%d events, %d broken", len(b.events), len(b.broken))
		}
		for _, e := range b.events {
			at, err := p.parsePosition(formatPosition(e.Position))
			if err != nil || at != e.Position || at.Partition != 3 || len(e.Target.To) == 0 {
				t.Errorf("got %+v, %v, want a position of partition 3 and rooms", e, err)
			}
		}
		for _, missing := range b.broken {
			if !errors.Is(missing.err, adapter.ErrUndecodable) {
				t.Error(missing.err)
			}
		}
		if e := new(adapter.Event); decodeLists(lists, e) == nil {
			again := new(adapter.Event)
			if err := decodeLists(string(appendLists([]byte{version}, e)), again); err != nil || !reflect.DeepEqual(e, again) {
				t.Errorf("%+v is read as %+v, %v, want %+v", e, again, err, again)
			}
		}
		if e, err := parseEntry(goredis.XMessage{ID: id, Values: map[string]any{"c": payload}}); err == nil {
			if again, err := parseEntry(goredis.XMessage{ID: e.ID()}); err != nil || again.Ms != e.Ms || again.Seq != e.Seq || feed.EntryOf(e.End(p.number)) != (feed.Entry{Ms: e.Ms, Seq: e.Seq}) {
				t.Errorf("%q is read as %+v, %+v, %v", id, e, again, err)
			}
		}
	})
}

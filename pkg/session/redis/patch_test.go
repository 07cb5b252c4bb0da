package redis

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/session"
	"github.com/rejoin-io/rejoin/pkg/session/sessiontest"
)

// The contract holds also if every write is sent as a difference.
func TestContractWithDifferences(t *testing.T) {
	server := redistest.Start(t)
	sessiontest.Run(t, func(t *testing.T) session.Store {
		s := open(t, server.URL(), Options{Prefix: t.Name() + ":"})
		s.patchFrom = 1
		return s
	})
}

// What two values share is found to the byte, wherever it ends.
func TestSharedBytes(t *testing.T) {
	const most = 3*compared + 7
	backwards := func(b []byte) []byte {
		b = bytes.Clone(b)
		slices.Reverse(b)
		return b
	}
	for _, longer := range []int{0, 1, compared} {
		for same := range most {
			a := bytes.Repeat([]byte("x"), most)
			b := bytes.Repeat([]byte("x"), most+longer)
			a[same] = 'y'
			if n := sharedBytes(a, b); n != same {
				t.Fatalf("%d and %d bytes: the first %d are alike, want %d", len(a), len(b), n, same)
			}
			if n := sharedEnd(backwards(b), backwards(a)); n != same {
				t.Fatalf("%d and %d bytes: the last %d are alike, want %d", len(b), len(a), n, same)
			}
		}
		a, b := bytes.Repeat([]byte("x"), most), bytes.Repeat([]byte("x"), most+longer)
		if first, last := sharedBytes(a, b), sharedEnd(b, a); first != most || last != most {
			t.Errorf("%d and %d bytes: the first %d and the last %d are alike, want all", len(a), len(b), first, last)
		}
	}
}

// manyRooms is a session with names as long as they may be.
func manyRooms(pid string, n int) session.Session {
	sn := session.Session{PID: pid, ID: "id", Namespace: "/", User: "user", Data: []byte(`{"a":1}`), Owner: "a", Fence: 1}
	for i := range n {
		sn.Rooms = append(sn.Rooms, session.Membership{Name: fmt.Sprintf("%04d%s", i, strings.Repeat("x", 196)), Join: fmt.Sprint("epoch.", 1000+i)})
	}
	return sn
}

// A socket with many rooms that joins and leaves one costs Redis the difference.
func TestJoinsOfASocketWithManyRooms(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, server.URL(), Options{})
	sn := manyRooms("p", 999)
	if err := s.Create(within(t, 20*time.Second), sn, long); err != nil {
		t.Fatal(err)
	}
	received := func() (n int) {
		info, err := server.Client().Info(t.Context(), "stats").Result()
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(info, "total_net_input_bytes:")
		fmt.Sscan(rest, &n)
		return n
	}
	const writes = 50
	before := received()
	for i := range writes {
		if i%2 == 0 {
			sn.Rooms = append(sn.Rooms, session.Membership{Name: strings.Repeat("y", 200), Join: "epoch.5000"})
		} else {
			sn.Rooms[999].Leave = "epoch.6000"
			sn.Rooms = sn.Rooms[:999]
		}
		if err := s.Save(within(t, 20*time.Second), sn, long); err != nil {
			t.Fatal(err)
		}
	}
	if n := (received() - before) / writes; n > 1500 {
		t.Errorf("a join or leave costs Redis %d bytes", n)
	}
	other := open(t, server.URL(), Options{})
	if got, err := peek(t, other, "p"); err != nil || !reflect.DeepEqual(got.Rooms, sn.Rooms) {
		t.Errorf("%d rooms, %v, want %d", len(got.Rooms), err, len(sn.Rooms))
	}
}

// Whatever changes in a session, what is stored is the whole of it, also if another
// store has written meanwhile, or Redis has lost the scripts.
func TestDifferencesAreExact(t *testing.T) {
	server := redistest.Start(t)
	stores := []*Store{open(t, server.URL(), Options{}), open(t, server.URL(), Options{})}
	for _, s := range stores {
		s.patchFrom = 1
	}
	sn := manyRooms("p", 5)
	if err := stores[0].Create(within(t, 20*time.Second), sn, long); err != nil {
		t.Fatal(err)
	}
	owner := 0
	for i := range 300 {
		for range 1 + rand.N(3) {
			switch n := len(sn.Rooms); {
			case n == 0 || rand.N(3) == 0:
				at := rand.N(n + 1)
				m := session.Membership{Kind: uint8(rand.N(3)), Name: strings.Repeat("n", rand.N(200)), Join: fmt.Sprint("e.", rand.N(1000))}
				sn.Rooms = append(sn.Rooms[:at:at], append([]session.Membership{m}, sn.Rooms[at:]...)...)
			case rand.N(2) == 0:
				at := rand.N(n)
				sn.Rooms = append(sn.Rooms[:at:at], sn.Rooms[at+1:]...)
			case rand.N(4) == 0:
				sn.Data = []byte(strings.Repeat("d", 1+rand.N(300)))
			default:
				sn.Rooms[rand.N(n)].Leave = fmt.Sprint("e.", rand.N(1000))
			}
		}
		switch rand.N(20) {
		case 0:
			owner = 1 - owner
			claimed, _, err := stores[owner].Claim(within(t, 20*time.Second), "p", fmt.Sprint("owner ", owner), long, nil)
			if err != nil {
				t.Fatal(err)
			}
			sn = claimed
			continue
		case 1:
			server.Client().ScriptFlush(t.Context())
		case 2:
			stores[owner].known.put(stores[owner].key("p"), []byte(strings.Repeat("0", 200))) // what is not there
		}
		if err := stores[owner].Save(within(t, 20*time.Second), sn, long); err != nil {
			t.Fatal(err)
		}
		got, err := peek(t, stores[rand.N(2)], "p")
		if err != nil || len(got.Rooms) != len(sn.Rooms) || len(sn.Rooms) > 0 && !reflect.DeepEqual(got.Rooms, sn.Rooms) || string(got.Data) != string(sn.Data) {
			t.Fatalf("write %d: %v\n%+v\nwant\n%+v", i, err, got, sn)
		}
	}
}

// What is remembered is bounded.
func TestKnownValuesAreBounded(t *testing.T) {
	var k known
	for i := range 100 {
		k.put(fmt.Sprint(i), make([]byte, 1<<20))
		k.put("again", make([]byte, 1<<20))
	}
	if k.bytes > knownBytes || k.bytes != len(k.values)<<20 || k.get("again") == nil {
		t.Errorf("%d bytes of %d values", k.bytes, len(k.values))
	}
	k.put("again", nil)
	if k.get("again") != nil {
		t.Error("a value is not forgotten")
	}
}

// A socket that has lost its session to another one of the same node does not write it any
// more, and of two writes the later one stays, also where what the store remembers is newer
// than what it is to write.
func TestLateWritesOfLargeSessions(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, server.URL(), Options{})
	first := manyRooms("p", 100)
	if err := s.Create(t.Context(), first, long); err != nil {
		t.Fatal(err)
	}
	claimed, _, err := s.Claim(t.Context(), "p", "a", long, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context(), first, long); !errors.Is(err, session.ErrFenced) {
		t.Errorf("the former socket's Save: %v, want ErrFenced", err)
	}
	if claimed, _, err = s.Claim(t.Context(), "p", "a", long, nil); err != nil || claimed.Fence != 3 {
		t.Fatalf("the next claim has the fence %d: %v", claimed.Fence, err)
	}

	late, err := s.encode(claimed)
	if err != nil {
		t.Fatal(err)
	}
	claimed.Data = []byte(`"later"`)
	if err := s.Save(t.Context(), claimed, long); err != nil {
		t.Fatal(err)
	}
	if precedes(s.known.get(s.key("p")), late) {
		t.Error("the difference to a later write would be sent")
	}
}

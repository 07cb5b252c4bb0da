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

// The contract also holds if every write is sent as a difference.
func TestContractWithDifferences(t *testing.T) {
	server := redistest.Start(t)
	sessiontest.Run(t, func(t *testing.T) session.Store {
		s := open(t, server.URL(), Options{Prefix: t.Name() + ":"})
		s.patchFrom = 1
		return s
	})
}

// The common prefix and suffix of two values are found exactly, at every length.
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

// manyRooms is a session with room names of the maximum length.
func manyRooms(pid string, n int) session.Session {
	sn := session.Session{PID: pid, ID: "id", Namespace: "/", User: "user", Data: []byte(`{"a":1}`), Owner: "a", Fence: 1}
	for i := range n {
		sn.Rooms = append(sn.Rooms, session.Membership{Name: fmt.Sprintf("%04d%s", i, strings.Repeat("x", 196)), Join: fmt.Sprint("epoch.", 1000+i)})
	}
	return sn
}

// A join or leave of a socket with many rooms sends only the differences to Redis, at any place in
// the session.
func TestJoinsOfASocketWithManyRooms(t *testing.T) {
	server := redistest.Start(t)
	received := func() (n int) {
		info, err := server.Client().Info(t.Context(), "stats").Result()
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(info, "total_net_input_bytes:")
		fmt.Sscan(rest, &n)
		return n
	}
	for _, row := range []struct {
		name   string
		others int      // rooms
		rooms  []string // that are joined and left
		most   int      // bytes of a write
	}{
		{"one", 999, []string{"~"}, 700},
		{"the first and the last", 999, []string{"!", "~"}, 800},
		{"ten", 999, []string{"00", "01", "02", "03", "04", "05", "06", "07", "08", "09"}, 3000},
		{"one of a small session", 8, []string{"~"}, 1000},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := open(t, server.URL(), Options{})
			sn := manyRooms(row.name, row.others)
			if err := s.Create(within(t, 20*time.Second), sn, long); err != nil {
				t.Fatal(err)
			}
			names := make(map[string]bool)
			for _, name := range row.rooms {
				names[name] = true
			}
			without := sn.Rooms
			const writes = 50
			before := received()
			for i := range writes {
				sn.Rooms = without
				if i%2 == 0 {
					sn.Rooms = slices.Clone(without)
					for name := range names {
						sn.Rooms = append(sn.Rooms, session.Membership{Name: name, Join: fmt.Sprint("epoch.", 5000+i)})
					}
					slices.SortFunc(sn.Rooms, func(a, b session.Membership) int { return strings.Compare(a.Name, b.Name) })
				}
				if err := s.Save(within(t, 20*time.Second), sn, long); err != nil {
					t.Fatal(err)
				}
			}
			n := (received() - before) / writes
			t.Logf("a write of %d bytes", n)
			if n > row.most {
				t.Errorf("a join or leave costs Redis %d bytes, want at most %d", n, row.most)
			}
			other := open(t, server.URL(), Options{})
			if got, err := peek(t, other, row.name); err != nil || !reflect.DeepEqual(got.Rooms, sn.Rooms) {
				t.Errorf("%d rooms, %v, want %d", len(got.Rooms), err, len(sn.Rooms))
			}
		})
	}
}

// patched does the same as the script patch.
func patched(old []byte, args []any) []byte {
	var value []byte
	for part := range slices.Chunk(args, 3) {
		if from, to := part[0].(int), part[1].(int); from <= to {
			value = append(value, old[from-1:to]...)
		}
		switch literal := part[2].(type) {
		case []byte:
			value = append(value, literal...)
		case string:
			value = append(value, literal...)
		}
	}
	return value
}

// A difference turns one value into the other, is little larger than the changes, and is not sent if
// the changes are most of the value.
func TestDifference(t *testing.T) {
	s := New(nil, Options{})
	encode := func(sn session.Session) []byte {
		value, err := s.encode(sn)
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	for range 2000 {
		sn := manyRooms("p", rand.N(300))
		if rand.N(4) == 0 {
			rand.Shuffle(len(sn.Rooms), func(i, j int) { sn.Rooms[i], sn.Rooms[j] = sn.Rooms[j], sn.Rooms[i] })
		}
		old := encode(sn)
		changes := rand.N(1 + len(sn.Rooms)/2)
		if rand.N(2) == 0 {
			changes = min(changes, rand.N(4))
		}
		for range changes {
			at := rand.N(max(1, len(sn.Rooms)))
			switch rand.N(4) {
			case 0:
				sn.Rooms = slices.Insert(sn.Rooms, at, session.Membership{Name: strings.Repeat("n", rand.N(200)), Join: fmt.Sprint("e.", rand.N(1000))})
			case 1:
				sn.Rooms[at].Leave = fmt.Sprint("e.", rand.N(1000))
			case 2:
				sn.Rooms = slices.Delete(sn.Rooms, at, at+1)
			case 3:
				sn.Data = []byte(strings.Repeat("d", 1+rand.N(300)))
			}
			if len(sn.Rooms) == 0 {
				break
			}
		}
		value := encode(sn)
		args, _ := difference(old, value)
		if args == nil {
			if most := 60 * len(value) / 100; 500*changes+600 < most && changes < maxStretches/2 {
				t.Fatalf("%d changes of %d rooms are not sent as a difference", changes, len(sn.Rooms))
			}
			continue
		}
		if got := patched(old, args); !bytes.Equal(got, value) {
			t.Fatalf("%d changes of %d rooms: the difference makes %q\nof %q\nwant %q", changes, len(sn.Rooms), got, old, value)
		}
		size := 0
		for part := range slices.Chunk(args, 3) {
			if literal, ok := part[2].([]byte); ok {
				size += len(literal)
			}
		}
		if most := headSize + 400 + smallStretch + 500*changes; size > most && changes < maxStretches/2 {
			t.Errorf("%d changes of %d rooms carry %d bytes", changes, len(sn.Rooms), size)
		}
		if size > len(value)/2 {
			t.Errorf("a difference of %d bytes of %d, want at most %d", size, len(value), len(value)/2)
		}
	}
}

// After any change of a session the stored value is complete, also if another store has
// written meanwhile, or Redis has lost the scripts.
func TestDifferencesAreExact(t *testing.T) {
	server := redistest.Start(t)
	stores := []*Store{open(t, server.URL(), Options{}), open(t, server.URL(), Options{})}
	for _, s := range stores {
		s.patchFrom = 1
	}
	sn := manyRooms("p", 40)
	if err := stores[0].Create(within(t, 20*time.Second), sn, long); err != nil {
		t.Fatal(err)
	}
	owner := 0
	for i := range 300 {
		changes := 1 + rand.N(3)
		if rand.N(5) == 0 {
			changes *= 10
		}
		for range changes {
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
			stores[owner].known.put(stores[owner].key("p"), []byte(strings.Repeat("0", 200))) // a part that does not exist
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

// The remembered values are bounded.
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

// A socket that has lost its session to another one of the same node no longer writes it.
// Of two writes the later one stays, also if the remembered value is newer than the one to
// write.
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
		t.Fatalf("the next claim has the fence %d: %v, want 3", claimed.Fence, err)
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

package redis

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// No key contains a private id, and the keys are those of the package comment.
func TestLayout(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, server.URL(), Options{Prefix: "test:"})
	sn := mustCreate(t, s, "secret")
	sn.Fence = 1
	if err := s.Save(within(t, 20*time.Second), sn, long); err != nil {
		t.Fatal(err)
	}
	c := server.Client()
	keys, err := c.Keys(t.Context(), "*").Result()
	if err != nil || len(keys) != 1 || !strings.HasPrefix(keys[0], "test:s:") || len(keys[0]) != len("test:s:")+43 {
		t.Fatalf("the keys are %q, %v", keys, err)
	}
	value, err := c.Get(t.Context(), keys[0]).Result()
	if err != nil || value[:16] != "0000000000000001" || strings.Contains(value, "secret") || strings.Contains(keys[0], "secret") {
		t.Errorf("the value is %q, %v", value, err)
	}
	if ttl := c.PTTL(t.Context(), keys[0]).Val(); ttl <= 0 || ttl > long {
		t.Errorf("it lives for %v, want more than 0, at most %v", ttl, long)
	}
}

// Two stores race for one session. Each claim that succeeds has a fence of its
// own, and once one has, the former owner changes nothing.
func TestTwoStoresRace(t *testing.T) {
	server := redistest.Start(t)
	stores := []*Store{open(t, server.URL(), Options{}), open(t, server.URL(), Options{})}
	for round := range 50 {
		pid := fmt.Sprint(round)
		sn := mustCreate(t, stores[0], pid)
		claims := make([]session.Session, len(stores))
		var wg sync.WaitGroup
		for i, s := range stores {
			wg.Go(func() {
				var err error
				if claims[i], _, err = s.Claim(within(t, 20*time.Second), pid, fmt.Sprint(i), long, nil); err != nil {
					t.Errorf("Claim: %v", err)
				}
			})
		}
		wg.Wait()
		winner := 0
		if claims[1].Fence > claims[0].Fence {
			winner = 1
		}
		if claims[winner].Fence != 3 || claims[1-winner].Fence != 2 {
			t.Fatalf("the fences are %d and %d", claims[0].Fence, claims[1].Fence)
		}
		for _, old := range []session.Session{sn, claims[1-winner]} {
			if err := stores[1-winner].Save(within(t, 20*time.Second), old, long); !errors.Is(err, session.ErrFenced) {
				t.Errorf("Save with the fence %d: %v, want session.ErrFenced", old.Fence, err)
			}
		}
		if err := stores[winner].Save(within(t, 20*time.Second), claims[winner], long); err != nil {
			t.Errorf("Save by the owner: %v", err)
		}
	}
}

func TestTooLarge(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, server.URL(), Options{MaxSize: 1000})
	sn := mustCreate(t, s, "p")
	sn.Data = make([]byte, 1000)
	if err := s.Save(within(t, 20*time.Second), sn, long); !errors.Is(err, session.ErrTooLarge) {
		t.Errorf("Save: %v, want ErrTooLarge", err)
	}
	sn.PID = "q"
	if err := s.Create(within(t, 20*time.Second), sn, long); !errors.Is(err, session.ErrTooLarge) {
		t.Errorf("Create: %v, want ErrTooLarge", err)
	}
}

// Slots move and masters change while sessions are written. Calls may fail then, but not
// twice in a row, and no successful call is undone.
func TestClusterInMotion(t *testing.T) {
	// A server must not fail over by itself on a busy machine, because that may lose
	// writes.
	cluster := redistest.StartCluster(t, "cluster-node-timeout 60000")
	s := open(t, cluster.URL(), Options{Timeout: time.Second})
	save := func(sn session.Session) error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel() // here, because calls are many
		return s.Save(ctx, sn, long)
	}
	var sessions []session.Session
	for i := range 20 { // before calls may fail
		sessions = append(sessions, mustCreate(t, s, fmt.Sprint(i)))
	}
	stop := make(chan struct{})
	var owners sync.WaitGroup
	finish := sync.OnceFunc(func() {
		close(stop)
		owners.Wait()
	})
	defer finish() // also if the cluster fails the test
	for _, sn := range sessions {
		owners.Go(func() {
			saved := 0
			for n := 1; ; n++ {
				sn.User = fmt.Sprint(n)
				select {
				case <-stop:
					// The last write must succeed.
					err := save(sn)
					for end := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(end); err = save(sn) {
						time.Sleep(time.Millisecond)
					}
					if err != nil {
						t.Errorf("Save: %v", err)
						return
					}
					if got, err := peek(t, s, sn.PID); err != nil || got.User != sn.User {
						t.Errorf("the session is %+v, %v, want the user %s", got, err, sn.User)
					}
					if saved == 0 {
						t.Error("nothing was saved meanwhile")
					}
					return
				default:
				}
				switch err := save(sn); {
				case err == nil:
					saved++
				case errors.Is(err, session.ErrFenced) || errors.Is(err, session.ErrNotFound):
					t.Errorf("Save: %v", err)
					return
				default:
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	for i := range 5 {
		slot := cluster.Slot(s.key(fmt.Sprint(i)))
		for _, to := range cluster.Masters() {
			if to != cluster.Owner(slot) {
				cluster.MoveSlot(slot, to)
				break
			}
		}
	}
	// A planned failover loses nothing.
	cluster.Failover(cluster.Replica(cluster.Servers[0]))
	finish()
}

// A slow server does not delay others.
func TestOneServerOfAClusterIsPaused(t *testing.T) {
	cluster := redistest.StartCluster(t, "cluster-node-timeout 60000")
	s := open(t, cluster.URL(), Options{Timeout: 10 * time.Second})
	still := cluster.Servers[0]
	held, free := "", ""
	for i := 0; held == "" || free == ""; i++ {
		pid := fmt.Sprint(i)
		if cluster.Owner(cluster.Slot(s.key(pid))) == still {
			held = pid
		} else {
			free = pid
		}
	}
	a, b := mustCreate(t, s, held), mustCreate(t, s, free)
	still.Pause()
	n := s.Stats().Pipelines
	stuck := make(chan error, 1)
	go func() { stuck <- s.Save(within(t, 20*time.Second), a, long) }()
	for s.Stats().Pipelines == n {
		time.Sleep(time.Millisecond)
	}
	if err := s.Save(within(t, 20*time.Second), b, long); err != nil {
		t.Errorf("Save: %v", err)
	}
	if len(stuck) > 0 {
		t.Errorf("a save at another server has waited for the paused one: %v", <-stuck)
		return
	}
	still.Resume()
	if err := <-stuck; err != nil {
		t.Errorf("Save after its server has resumed: %v", err)
	}
}

func TestDecodeUndoesEncode(t *testing.T) {
	s := New(nil, Options{})
	for _, sn := range []session.Session{
		{},
		full(),
		{Fence: 1<<64 - 1, Rooms: []session.Membership{{Join: "abc"}, {Join: "ab"}, {Join: ""}, {Join: "abcd", Leave: "abce"}}},
	} {
		value, err := s.encode(sn)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(value)
		if err != nil || !reflect.DeepEqual(got, sn) {
			t.Errorf("%+v became %+v, %v, want %+v", sn, got, err, sn)
		}
		for n := range value {
			if _, err := decode(value[:n]); err == nil {
				t.Errorf("the first %d of %d bytes are understood", n, len(value))
			}
		}
		if _, err := decode(append(value, 0)); err == nil {
			t.Error("a byte too many is not noticed")
		}
	}
}

// A session that a newer version has stored is not claimed, and is unchanged.
func TestClaimOfANewerSession(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, server.URL(), Options{})
	sn := mustCreate(t, s, "pid")
	client, key := server.Client(), s.key("pid")
	value, err := client.Get(t.Context(), key).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for _, stored := range []string{
		string(value[:headSize]) + string([]byte{version + 1}) + string(value[headSize+1:]),
		string(value[:len(value)-1]),
	} {
		if err := client.Set(t.Context(), key, stored, 0).Err(); err != nil {
			t.Fatal(err)
		}
		if got, _, err := s.Claim(within(t, long), sn.PID, "b", long, nil); !errors.Is(err, session.ErrUndecodable) {
			t.Errorf("claimed %+v, %v, want session.ErrUndecodable", got, err)
		}
		if after, err := client.Get(t.Context(), key).Result(); err != nil || after != stored {
			t.Errorf("the session has changed to %q, %v, want %q", after, err, stored)
		}
	}
}

// bomb returns a value in which each room's position is encoded as one byte longer than the
// previous one, beginning with some bytes.
func bomb(first, rooms int) []byte {
	b := append(make([]byte, headSize), version)
	copy(b, "0000000000000001")
	b = append(b, make([]byte, 6)...) // strings and data
	b = binary.AppendUvarint(b, uint64(rooms))
	for i := range rooms {
		position := "x"
		if i == 0 {
			position = strings.Repeat("x", first)
		}
		b = append(b, 0, 0)
		b = binary.AppendUvarint(b, uint64(max(0, min(i, 1)*(first+i-1))))
		b = append(appendString(b, position), 0)
	}
	return b
}

// Decoding a value takes memory in proportion to its size, for any content.
func TestDecodedValuesAreBounded(t *testing.T) {
	for _, tt := range []struct {
		first, rooms int
		fits         bool
	}{{100, 1000, true}, {maxPosition - 9, 10, true}, {maxPosition - 9, 11, false}, {40_000, 3000, false}} {
		value := bomb(tt.first, tt.rooms)
		if _, err := decode(value); (err == nil) != tt.fits {
			t.Errorf("%+v: %v", tt, err)
		}
	}
	server := redistest.Start(t)
	s := open(t, server.URL(), Options{MaxSize: 10_000})
	for size, want := range map[int]error{10_000: nil, 10_001: session.ErrUndecodable} {
		sn := full()
		value, err := s.encode(sn)
		if err != nil {
			t.Fatal(err)
		}
		sn.Data = bytes.Repeat([]byte("x"), size-len(value)+len(sn.Data)-1) // its length takes one byte more
		if value, err = New(nil, Options{}).encode(sn); err != nil || len(value) != size {
			t.Fatalf("a value of %d bytes: %v, want %d", len(value), err, size)
		}
		if err := server.Client().Set(t.Context(), s.key("pid"), value, time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
		refused := errors.New("refused")
		if _, _, err := s.Claim(within(t, long), "pid", "b", long, func(session.Session) error { return refused }); want == nil && err != refused || want != nil && !errors.Is(err, want) {
			t.Errorf("with %d bytes: %v", size, err)
		}
	}
	sn := full()
	sn.Rooms[0].Join = strings.Repeat("x", maxPosition+1)
	if _, err := s.encode(sn); !errors.Is(err, session.ErrTooLarge) {
		t.Errorf("a long position: %v, want session.ErrTooLarge", err)
	}
}

func FuzzDecode(f *testing.F) {
	value, err := New(nil, Options{}).encode(full())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(value)
	f.Add(bomb(4000, 1000))
	f.Add(bomb(1000, 1000))
	f.Fuzz(func(t *testing.T, value []byte) {
		sn, err := decode(value)
		if err != nil {
			return
		}
		size := 0
		for _, m := range sn.Rooms {
			size += len(m.Name) + len(m.Join) + len(m.Leave)
		}
		if size > len(value)*maxPosition/5 || size > len(value)+maxPositions { // a membership takes five bytes
			t.Errorf("%d bytes make %d, want at most %d, at most %d", len(value), size, len(value)*maxPosition/5, len(value)+maxPositions)
		}
		again, err := New(nil, Options{MaxSize: 1 << 30}).encode(sn)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decode(again); err != nil || !reflect.DeepEqual(got, sn) {
			t.Errorf("%+v became %+v, %v, want %+v", sn, got, err, sn)
		}
	})
}

// full returns a session with all fields, but for the private id.
func full() session.Session {
	sn := session.Session{ID: "id", Namespace: "/chat", User: "user", Data: []byte(`{"a":1}`), Epoch: "epoch", Owner: "node", Fence: 3}
	for i := range 10 {
		sn.Rooms = append(sn.Rooms, session.Membership{Kind: 2, Name: fmt.Sprint("room ", i), Join: fmt.Sprint("epoch.1795557600000-", 1024*i), Leave: ""})
	}
	return sn
}

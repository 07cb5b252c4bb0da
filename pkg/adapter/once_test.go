package adapter

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

func keyed(id byte, window time.Duration, to ...rooms.Room) Event {
	e := stored("x", to...)
	e.Once = &Once{ID: [16]byte{id}, Window: window}
	return e
}

// An event that was published in some partitions is published in the others by the next call with
// its id. Each copy is published once, and names the former positions of those before it.
func TestOnceCompletesCopies(t *testing.T) {
	for fails := range 3 {
		ps, spies, homes := spy(t, NewMemory(MemoryOptions{Partitions: 3}))
		if _, err := ps.Subscribe(t.Context(), homes...); err != nil {
			t.Fatal(err)
		}
		e := keyed(1, time.Minute, homes...)
		spies[fails].err = ErrNotPublished
		if _, err := ps.Publish(t.Context(), e); err == nil {
			t.Fatal("the publication has not failed")
		}
		spies[fails].err = nil
		tried := func() (calls []int) {
			for _, s := range spies {
				calls, s.published = append(calls, len(s.published)), nil
			}
			return calls
		}
		tried()
		r, err := ps.Publish(t.Context(), e)
		if err != nil || r.Repeated || len(r.Copies) != 3 {
			t.Fatalf("partition %d has failed: %+v, %v", fails, r, err)
		}
		if calls, want := tried(), 1+min(fails, 1); slices.ContainsFunc(calls, func(n int) bool { return n != want }) {
			t.Errorf("the copies took %d calls, want %d each", calls, want)
		}
		again, err := ps.Publish(t.Context(), e)
		if calls := tried(); !slices.Equal(calls, []int{1, 1, 1}) {
			t.Errorf("a repeated event took %d calls, want 1 each", calls)
		}
		if err != nil || !again.Repeated || !slices.EqualFunc(again.Copies, r.Copies, func(a, b Copy) bool { return a.At == b.At }) {
			t.Errorf("again: %+v, %v, want %+v", again, err, r)
		}
		for range 3 {
			e, err := ps.Next(t.Context())
			i := e.Position.Partition
			if err != nil || e.Position != r.Copies[i].At || len(e.Earlier) != int(i) {
				t.Errorf("%+v, %v, want one of %v", e, err, r.Copies)
			}
			for k, c := range e.Earlier {
				if c.At != r.Copies[k].At {
					t.Errorf("partition %d: the earlier copy %d is at %v, want %v", i, k, c.At, r.Copies[k].At)
				}
			}
		}
		if end, _ := ps.Head(t.Context()); slices.ContainsFunc(r.Copies, func(c Copy) bool { return end.In(c.At.Partition) != c.At }) {
			t.Errorf("the head is %v, and the copies are %v", end, r.Copies)
		}
	}
}

// Members forget the rooms that they have left. So a copy that follows too late is not published, and
// the call says that another one was. If all copies exist, time does not matter.
func TestOnceCompletesCopiesInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ps, spies, homes := spy(t, NewMemory(MemoryOptions{Partitions: 3}))
		half, whole := keyed(1, time.Minute, homes...), keyed(2, time.Minute, homes...)
		if _, err := ps.Publish(t.Context(), whole); err != nil {
			t.Fatal(err)
		}
		spies[2].err = ErrNotPublished
		if _, err := ps.Publish(t.Context(), half); !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
		spies[2].err = nil
		time.Sleep(time.Minute + time.Second)
		for range 2 {
			if _, err := ps.Publish(t.Context(), half); !errors.Is(err, ErrIncomplete) || !errors.Is(err, ErrUnavailable) {
				t.Errorf("too late: %v, want ErrIncomplete and ErrUnavailable", err)
			}
			if r, err := ps.Publish(t.Context(), whole); err != nil || !r.Repeated {
				t.Errorf("all copies exist: %+v, %v, want a repeated one", r, err)
			}
		}
		half.Once.Window = 0
		if r, err := ps.Publish(t.Context(), half); err != nil || r.Repeated {
			t.Errorf("without a limit: %+v, %v", r, err)
		}
	})
}

// Another event with the id is found where it meets the first one.
func TestOnceReusedInAnotherPartition(t *testing.T) {
	ps, _, homes := spy(t, NewMemory(MemoryOptions{Partitions: 3}))
	if _, err := ps.Publish(t.Context(), keyed(1, 0, homes[1])); err != nil {
		t.Fatal(err)
	}
	other := keyed(1, 0, homes[1:]...)
	other.Once.Content[0] = 1
	if _, err := ps.Publish(t.Context(), other); !errors.Is(err, ErrReused) || errors.Is(err, ErrUnavailable) {
		t.Errorf("in the first partition: %v, want ErrReused", err)
	}
	other.Target.To = homes
	if _, err := ps.Publish(t.Context(), other); !errors.Is(err, ErrReused) || !errors.Is(err, ErrUnavailable) {
		t.Errorf("in the second partition: %v, want ErrReused and ErrUnavailable", err)
	}
}

// A call that has published a copy does not count as repeated, though another call published the last one
// before its second round.
func TestOnceThatAnotherCallCompletes(t *testing.T) {
	m := NewMemory(MemoryOptions{Partitions: 3})
	ps, spies, homes := spy(t, m)
	e := keyed(1, time.Minute, homes...)
	if _, err := ps.Publish(t.Context(), keyed(1, time.Minute, homes[1])); err != nil {
		t.Fatal(err)
	}
	other := mustJoin(t, m, "b")
	spies[0].Partition = standing{spies[0].Partition, func(e Event) {
		if e.Once.Until > 0 { // the second round begins
			if _, err := other.Publish(t.Context(), keyed(1, 0, homes[2])); err != nil {
				t.Error(err)
			}
		}
	}}
	if r, err := ps.Publish(t.Context(), e); err != nil || r.Repeated || len(r.Copies) != 3 {
		t.Errorf("%+v, %v, want an event that is not repeated", r, err)
	}
	if n := len(spies[0].published); n != 2 {
		t.Errorf("%d rounds, want 2", n)
	}
}

// A spoilt partition has a wrong clock.
type spoilt struct {
	Partition
	ahead time.Duration
}

func (s spoilt) Publish(ctx context.Context, e Event) (Receipt, error) {
	if e.Once.Until > 1 {
		own := *e.Once
		own.Until -= uint64(s.ahead.Milliseconds())
		e.Once = &own
	}
	r, err := s.Partition.Publish(ctx, e)
	r.Cursor.At.Ms += uint64(s.ahead.Milliseconds())
	return r, err
}

// Which of the partitions has a wrong clock makes no difference for the time within which an event is
// completed: it is measured from the oldest copy on.
func TestOnceWithWrongClocks(t *testing.T) {
	for wrong := range 3 {
		for _, ahead := range []time.Duration{time.Hour, -time.Hour} {
			for _, wait := range []time.Duration{0, 59 * time.Second, 61 * time.Second} {
				synctest.Test(t, func(t *testing.T) {
					ps, spies, homes := spy(t, NewMemory(MemoryOptions{Partitions: 3}))
					spies[wrong].Partition = spoilt{spies[wrong].Partition, ahead}
					e, first := keyed(1, time.Minute, homes...), keyed(1, time.Minute, homes[0])
					if _, err := ps.Publish(t.Context(), first); err != nil {
						t.Fatal(err)
					}
					time.Sleep(wait)
					if _, err := ps.Publish(t.Context(), e); errors.Is(err, ErrIncomplete) != (wait > time.Minute) || err != nil && wait < time.Minute {
						t.Errorf("partition %d is %v ahead, after %v: %v", wrong, ahead, wait, err)
					}
				})
			}
		}
	}
}

// A standing partition stands still before it executes some calls.
type standing struct {
	Partition
	before func(e Event)
}

func (s standing) Publish(ctx context.Context, e Event) (Receipt, error) {
	s.before(e)
	return s.Partition.Publish(ctx, e)
}

// A copy that is sent in time is refused if its partition executes it too late, and the time before the age
// of the former copy is measured counts as well.
func TestOnceThatIsExecutedLate(t *testing.T) {
	for i, late := range []func(e Event) bool{
		func(e Event) bool { return e.Once.Until > 1 },                         // the copy
		func(e Event) bool { return e.Once.Until == 1 && len(e.Earlier) == 0 }, // the second measurement
		func(e Event) bool { return e.Once.Until == 0 },                        // the first one
	} {
		synctest.Test(t, func(t *testing.T) {
			ps, spies, homes := spy(t, NewMemory(MemoryOptions{Partitions: 2}))
			if _, err := ps.Publish(t.Context(), keyed(1, time.Minute, homes[0])); err != nil {
				t.Fatal(err)
			}
			time.Sleep(30 * time.Second)
			for _, s := range spies {
				s.Partition = standing{s.Partition, func(e Event) {
					if late(e) {
						time.Sleep(31 * time.Second)
					}
				}}
			}
			if _, err := ps.Publish(t.Context(), keyed(1, time.Minute, homes...)); !errors.Is(err, ErrIncomplete) {
				t.Errorf("call %d: %v, want ErrIncomplete", i, err)
			}
		})
	}
}

// An event of which one copy is new is not repeated.
func TestOnceWithANewCopy(t *testing.T) {
	for old := range 3 {
		ps, _, homes := spy(t, NewMemory(MemoryOptions{Partitions: 3}))
		if _, err := ps.Publish(t.Context(), keyed(1, 0, homes[old])); err != nil {
			t.Fatal(err)
		}
		if r, err := ps.Publish(t.Context(), keyed(1, 0, homes...)); err != nil || r.Repeated {
			t.Errorf("%+v, %v, want an event that is not repeated", r, err)
		}
	}
}

// A Memory keeps ids for OnceTTL and in bounded memory.
func TestMemoryOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(MemoryOptions{})
		n := mustJoin(t, m, "a")
		publish := func(repeated bool) {
			t.Helper()
			if r, err := n.Publish(t.Context(), keyed(1, 0, room("r"))); err != nil || r.Repeated != repeated {
				t.Errorf("%+v, %v, want repeated %v", r, err, repeated)
			}
		}
		publish(false)
		time.Sleep(OnceTTL - time.Second)
		publish(true)
		time.Sleep(time.Second)
		publish(false)
		if l := m.logs[0]; len(l.onces.byID) != 1 || len(l.onces.queue) != 1 {
			t.Errorf("%d ids, %d in the queue, want 1", len(l.onces.byID), len(l.onces.queue))
		}
	})
}

// The ids that clients choose have a limit of their own, so they cannot keep others from being published,
// nor can others keep them.
func TestMemoryOnceIsBounded(t *testing.T) {
	id := func(i int, untrusted bool) *Once {
		o := &Once{ID: [16]byte{byte(i), byte(i >> 8), byte(i >> 16)}, Untrusted: untrusted}
		if untrusted {
			o.ID[15] = 1
		}
		return o
	}
	for _, untrusted := range []bool{false, true} {
		os, now, most := onces{}, time.Now(), maxOnces
		if untrusted {
			most = maxClientOnces
		}
		for i := range most {
			if _, err := os.find(id(i, untrusted), now); err != nil {
				t.Fatalf("id %d: %v", i, err)
			}
			os.add(id(i, untrusted), Position{Ms: 1}, now)
		}
		if _, err := os.find(id(most, untrusted), now); !errors.Is(err, ErrNotPublished) {
			t.Errorf("untrusted %v: a full table: %v, want ErrNotPublished", untrusted, err)
		}
		if at, err := os.find(id(1, untrusted), now); err != nil || at.Ms != 1 {
			t.Errorf("untrusted %v: a full table: %v, %v for a known id", untrusted, at, err)
		}
		if _, err := os.find(id(0, !untrusted), now); err != nil {
			t.Errorf("untrusted %v: the others: %v", untrusted, err)
		}
		if _, err := os.find(id(most, untrusted), now.Add(OnceTTL)); err != nil || len(os.byID)+len(os.queue)+os.clients > 0 {
			t.Errorf("untrusted %v: after the TTL: %v, %d are kept", untrusted, err, len(os.byID))
		}
	}
}

package adapter

import (
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
		r, err := ps.Publish(t.Context(), e)
		if err != nil || r.Repeated || len(r.Copies) != 3 {
			t.Fatalf("partition %d has failed: %+v, %v", fails, r, err)
		}
		again, err := ps.Publish(t.Context(), e)
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
	os := onces{}
	for i := range maxOnces {
		os.add(&Once{ID: [16]byte{byte(i), byte(i >> 8), byte(i >> 16)}}, Position{Ms: 1}, time.Now())
	}
	if _, err := os.find(&Once{ID: [16]byte{15: 1}}, time.Now()); !errors.Is(err, ErrNotPublished) {
		t.Errorf("a full table: %v, want ErrNotPublished", err)
	}
	if at, err := os.find(&Once{ID: [16]byte{1}}, time.Now()); err != nil || at.Ms != 1 {
		t.Errorf("a full table: %v, %v for a known id", at, err)
	}
}

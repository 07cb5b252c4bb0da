package session

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestSessionsExpireAfterTheirTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		s := Session{PID: "p", Fence: 1}
		if err := m.Create(t.Context(), s, time.Minute); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute - 1)
		if gone, err := m.Refresh(t.Context(), []Ref{{"p", 1}}, time.Hour); err != nil || len(gone) > 0 {
			t.Fatalf("Refresh in the last moment: %v are gone, %v", gone, err)
		}
		time.Sleep(time.Hour - 1)
		if err := m.Save(t.Context(), s, time.Second); err != nil {
			t.Fatalf("Save in the last moment: %v", err)
		}
		time.Sleep(time.Second)
		if _, _, err := m.Claim(t.Context(), "p", "b", time.Hour, nil); !errors.Is(err, ErrNotFound) {
			t.Errorf("Claim when time is up: %v, want ErrNotFound", err)
		}
	})
}

// Expired sessions that are never requested are removed, too: at a steady rate of new ones
// the store holds at most about twice the live sessions.
func TestExpiredSessionsAreSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const alive = 1000
		m := NewMemory()
		for i := range 20 * alive {
			if err := m.Create(t.Context(), Session{PID: fmt.Sprint(i)}, alive*time.Millisecond); err != nil {
				t.Fatal(err)
			}
			if i%7 == 0 { // some are dropped, from anywhere
				if err := m.Drop(t.Context(), Ref{fmt.Sprint(max(0, i-i%alive)), 1}); err != nil {
					t.Fatal(err)
				}
			}
			if n := len(m.all); n > 2*alive+2 || n != len(m.byPID) {
				t.Fatalf("after %d sessions %d are held, and %d by their id, want at most %d, %d", i+1, n, len(m.byPID), 2*alive+2, len(m.byPID))
			}
			time.Sleep(time.Millisecond)
		}
		for i, e := range m.all {
			if e.index != i || m.byPID[e.session.PID] != e {
				t.Fatalf("session %d is not where it should be", i)
			}
		}
		// After a burst a few later sessions remove the expired ones.
		time.Sleep(time.Hour)
		const late = 3 * alive
		for i := range late {
			if err := m.Create(t.Context(), Session{PID: fmt.Sprint("late ", i)}, time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(m.all); n != late {
			t.Errorf("%d sessions are held, want the %d that are alive", n, late)
		}
	})
}

func BenchmarkRefresh(b *testing.B) {
	m := NewMemory()
	var live []Ref
	for i := range 10_000 {
		live = append(live, Ref{fmt.Sprint("pid ", i), 1})
		if err := m.Create(b.Context(), Session{PID: live[i].PID}, time.Hour); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if gone, err := m.Refresh(b.Context(), live, time.Hour); err != nil || len(gone) > 0 {
			b.Fatal(len(gone), err)
		}
	}
}

package integration

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestWitness: the checker of the cluster tests detects each kind of error. The
// publisher p has sent 0 to 4 before the client joins.
func TestWitness(t *testing.T) {
	for name, test := range map[string]struct {
		hears []int
		want  string // a problem, or the missing part
	}{
		"all":                  {[]int{5, 6, 7}, ""},
		"none":                 {nil, "TAIL"},
		"all, from a late ack": {[]int{6, 7}, ""},
		"the first is missing": {[]int{7}, "GAP"},
		"one is missing":       {[]int{5, 7}, "GAP"},
		"the last is missing":  {[]int{5, 6}, "TAIL"},
		"twice":                {[]int{5, 6, 6, 7}, "REPEAT"},
		"disorder":             {[]int{6, 5, 7}, "REPEAT"},
		"before the join":      {[]int{4, 5, 6, 7}, "LEAK"},
	} {
		t.Run(name, func(t *testing.T) {
			var l ledger
			send := func(n int) {
				for range n {
					l.start("room", "p")
					l.ack("room", "p")
				}
			}
			w := newWitness("w", &l, "room")
			w.connected(false, "a")
			send(5)
			w.joining()
			send(1) // 5 is sent while the client joins
			w.hasJoined()
			send(2)
			for _, n := range test.hears {
				w.hears("p", "room", n, "offset")
			}
			got := ""
			if err := w.complete(); err != nil {
				got = err.Error()
			}
			if err := w.verdict(); err != nil {
				got = err.Error()
			}
			if (test.want == "") != (got == "") || !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestWitnessOfAPair: an event for two partitions that was completed around the join may come after those
// that follow it, and no other one.
func TestWitnessOfAPair(t *testing.T) {
	for name, test := range map[string]struct {
		hears []int
		want  string
	}{
		"in order":        {[]int{5, 6}, ""},
		"completed":       {[]int{6, 5}, ""},
		"a batch":         {[]int{8, 5, 6, 7}, ""},
		"a batch twice":   {[]int{8, 5, 6, 6}, "REPEAT"},
		"repeated":        {[]int{6, 5, 5}, "REPEAT"},
		"repeated later":  {[]int{5, 6, 5}, "REPEAT"},
		"before the join": {[]int{5, 4, 6}, "REPEAT"},
	} {
		t.Run(name, func(t *testing.T) {
			var l ledger
			w := newWitness("w", &l, pairs)
			w.connected(false, "a")
			for i := range 9 {
				if i == 5 {
					w.joining()
				}
				l.start(pairs, "p")
				l.ack(pairs, "p")
			}
			w.hasJoined()
			for _, n := range test.hears {
				w.hears("p", pairs, n, "offset")
			}
			got := ""
			if err := w.verdict(); err != nil {
				got = err.Error()
			}
			if (test.want == "") != (got == "") || !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestRefusalsNeedACause: a session that may be older than a loss of history may be
// refused, although its client got it only afterwards. A later one must not.
func TestRefusalsNeedACause(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprint("connects afterwards: ", late), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fleet{t: t, cluster: &cluster{}}
				w := newWitness("w", &f.ledger, "room")
				w.connects("no offset")
				f.strike("FLUSHALL", destroys, func() { time.Sleep(time.Second) })
				time.Sleep(10 * time.Second)
				if late {
					w.connects("no offset")
				}
				f.arrives(w, false, "aaaa", "")
				w.connects("an offset")
				f.arrives(w, false, "bbbb", "aaaa")
				if err := w.verdict(); (err != nil) != late {
					t.Errorf("refused: %v", err)
				}
			})
		})
	}
}

package adapter_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

func TestPositionsCompare(t *testing.T) {
	order := []adapter.Position{{}, {Seq: 1}, {Ms: 1}, {Ms: 1, Seq: 1}, {Ms: 2}, {Ms: 2, Seq: math.MaxUint64}, {Ms: math.MaxUint64}}
	for i, p := range order {
		for j, q := range order {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := p.Compare(q); got != want {
				t.Errorf("%v.Compare(%v) = %d, want %d", p, q, got, want)
			}
			if got := (adapter.Cursor{At: p}).Covers(q); got != (want >= 0) {
				t.Errorf("a cursor at %v covers %v: %v", p, q, got)
			}
		}
	}
	if at := (adapter.Position{Ms: 1234}).Time(); !at.Equal(time.UnixMilli(1234)) {
		t.Errorf("Time = %v", at)
	}
}

func TestCursorMax(t *testing.T) {
	early := adapter.Cursor{Epoch: "e", At: adapter.Position{Ms: 1}}
	late := adapter.Cursor{Epoch: "e", At: adapter.Position{Ms: 2}}
	other := adapter.Cursor{Epoch: "f", At: adapter.Position{Ms: 1}}
	for _, c := range []struct{ a, b, want adapter.Cursor }{
		{early, late, late},
		{late, early, late},
		{late, late, late},
		{late, other, other},
		{other, late, late},
		{late, adapter.Cursor{}, adapter.Cursor{}},
	} {
		if got := c.a.Max(c.b); got != c.want {
			t.Errorf("%v.Max(%v) = %v, want %v", c.a, c.b, got, c.want)
		}
	}
}

func TestParseCursorRefusesWhatStringDoesNotWrite(t *testing.T) {
	for _, s := range []string{
		"", ".", "..", "e", "e.1", "e..1", "e.1.", ".1.1", "e.1.1.1", "e.01.1", "e.1.00", "e.A.1", "e.+1.1", "e.-1.1",
		"e.1_0.1", "e.1 .1", "e.3w5e11264sgsg.1", "e.1.1\n", strings.Repeat("e", 64) + ".1.1", "ping", `{"a":1}`,
	} {
		if c, err := adapter.ParseCursor(s); err == nil {
			t.Errorf("ParseCursor(%q) = %v, want an error", s, c)
		}
	}
}

func FuzzParseCursor(f *testing.F) {
	for _, c := range []adapter.Cursor{
		{},
		{Epoch: "K3Q7XW2A", At: adapter.Position{Ms: 1_780_000_000_000, Seq: 3}},
		{Epoch: "e", At: adapter.Position{Ms: math.MaxUint64, Seq: math.MaxUint64}},
	} {
		f.Add(c.String())
	}
	f.Add("e.01.1")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := adapter.ParseCursor(s)
		if err != nil {
			return
		}
		if c.IsZero() || c.String() != s {
			t.Errorf("%q was read as %v, which is written as %q", s, c, c.String())
		}
	})
}

package adapter_test

import (
	"encoding/binary"
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
				t.Errorf("a cursor at %v covers %v: %v, want %v", p, q, got, want >= 0)
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
		cursor(0, 1, 2, 3),
		cursor(1, 1_780_000_000_000, 1_780_000_000_001, 0),
		cursor(2, math.MaxUint64, 0, 1<<63),
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
		if !c.SameHistory(c) || !c.Includes(c) || !c.Covers(c.At) || c.In(c.At.Partition) != c.At {
			t.Errorf("%q was read as %v, which does not include itself", s, c)
		}
	})
}

// Two cursors with as many partitions as the bytes allow: each can be written and parsed,
// and Max is symmetric and includes both.
func FuzzCursors(f *testing.F) {
	f.Add([]byte{1}, uint16(0), uint16(0))
	f.Add([]byte("two partitions in two cursors take four positions at least, 64 bytes"), uint16(0), uint16(1))
	f.Fuzz(func(t *testing.T, b []byte, at, other uint16) {
		n := min(len(b)/32, adapter.MaxPartitions)
		if n == 0 {
			return
		}
		take := func() []adapter.Position {
			positions := make([]adapter.Position, n)
			for i := range positions {
				positions[i] = adapter.Position{Ms: binary.LittleEndian.Uint64(b), Seq: binary.LittleEndian.Uint64(b[8:]), Partition: uint16(i)}
				b = b[16:]
			}
			return positions
		}
		c, d := adapter.NewCursor("EPOCH", at%uint16(n), take()), adapter.NewCursor("EPOCH", other%uint16(n), take())
		for _, c := range []adapter.Cursor{c, d} {
			if got, err := adapter.ParseCursor(c.String()); err != nil || got != c {
				t.Errorf("%q is decoded as %v, %v, want %v", c.String(), got, err, c)
			}
		}
		most, same := c.Max(d), d.Max(c)
		if !most.Includes(c) || !most.Includes(d) || !same.Includes(most) || !most.Includes(same) {
			t.Errorf("the larger of %v and %v is %v, or %v", c, d, most, same)
		}
	})
}

// cursor makes a cursor of three partitions.
func cursor(at uint16, a, b, c uint64) adapter.Cursor {
	return adapter.NewCursor("EPOCH", at, []adapter.Position{{Ms: a, Seq: 1}, {Ms: b, Seq: 2, Partition: 1}, {Ms: c, Seq: 3, Partition: 2}})
}

func TestCursorsOfSeveralPartitions(t *testing.T) {
	c := cursor(1, 50, 70, 60)
	if c.At != (adapter.Position{Ms: 70, Seq: 2, Partition: 1}) {
		t.Errorf("At is %v", c.At)
	}
	for i, ms := range []uint64{50, 70, 60} {
		p := adapter.Position{Ms: ms, Seq: uint64(i + 1), Partition: uint16(i)}
		after := p
		after.Seq++
		if c.In(uint16(i)) != p || !c.Covers(p) || c.Covers(after) {
			t.Errorf("in partition %d it is at %v, want %v", i, c.In(uint16(i)), p)
		}
	}
	for _, m := range []struct {
		d, max   adapter.Cursor
		includes bool
	}{
		{cursor(0, 40, 70, 60), c, true},
		{cursor(2, 50, 70, 60), c, true},
		{cursor(0, 51, 10, 10), cursor(1, 51, 70, 60), false},
		{cursor(2, 10, 10, 99), cursor(2, 50, 70, 99), false},
	} {
		got := c.Max(m.d)
		for i := range uint16(3) {
			if got.In(i) != m.max.In(i) {
				t.Errorf("the larger of %v and %v is %v", c, m.d, got)
			}
		}
		if c.Includes(m.d) != m.includes {
			t.Errorf("%v includes %v: %v", c, m.d, !m.includes)
		}
	}
	if c.SameHistory(adapter.Cursor{Epoch: "EPOCH"}) {
		t.Error("a cursor of one partition is comparable to one of three")
	}
}

func TestProgress(t *testing.T) {
	p := adapter.NewProgress(cursor(0, 50, 70, 60))
	got := p.To(adapter.Position{Ms: 55, Partition: 2}) // it was further before
	if got.At != (adapter.Position{Ms: 60, Seq: 3, Partition: 2}) {
		t.Errorf("it went back to %v", got)
	}
	got = p.To(adapter.Position{Ms: 80, Partition: 0})
	if want := adapter.NewCursor("EPOCH", 0, []adapter.Position{{Ms: 80}, {Ms: 70, Seq: 2, Partition: 1}, {Ms: 60, Seq: 3, Partition: 2}}); got != want {
		t.Errorf("it is at %v, want %v", got, want)
	}
	p.Reset("NEW", adapter.Position{Ms: 1, Partition: 1})
	if got = p.To(adapter.Position{Ms: 1, Partition: 2}); got.Epoch != "NEW" || got.In(1).Ms != 1 || got.In(0).Ms != 80 {
		t.Errorf("after a reset it is at %v", got)
	}
}

func TestOffsetsOfSeveralPartitions(t *testing.T) {
	for _, c := range []adapter.Cursor{cursor(0, 1, 2, 3), cursor(1, 1_700_000_000_000, 1_700_000_000_001, 0), cursor(2, math.MaxUint64, 0, 1<<63)} {
		got, err := adapter.ParseCursor(c.String())
		if err != nil || got != c {
			t.Errorf("%q is decoded as %v, %v, want %v", c.String(), got, err, c)
		}
	}
	good := cursor(1, 10, 20, 30).String()
	for _, bad := range []string{good + "A", good[:len(good)-1], good + ".", strings.Replace(good, ".", "..", 1), "E.a.b.AA", "E.a.b.AQA", "E.a.b._w8"} {
		if c, err := adapter.ParseCursor(bad); err == nil {
			t.Errorf("%q is the offset %v", bad, c)
		}
	}
}

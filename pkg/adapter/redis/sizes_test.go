package redis

import (
	"testing"
	"time"
)

func TestSizes(t *testing.T) {
	var s sizes
	const life = time.Hour
	if n := s.largest(life); n != 0 {
		t.Errorf("at first %d, want 0", n)
	}
	for _, size := range []int{1, 5000, 3000} {
		s.saw(size)
	}
	if n := s.largest(life); n != 5000 {
		t.Errorf("largest %d, want 5000", n)
	}
	later := func() { s.turned.Store(time.Now().Add(-life).UnixNano()) }
	later()
	if n := s.largest(life); n != 5000 {
		t.Errorf("in the next period %d, want 5000", n)
	}
	s.saw(1)
	later()
	if n := s.largest(life); n != leastEvent {
		t.Errorf("in the one after %d, want %d", n, leastEvent)
	}
}

// Entries of unknown or large sizes are not read by their number.
func TestRangeable(t *testing.T) {
	for _, tt := range []struct {
		largest, keys, count, hold int
		first                      bool
		want                       int
	}{
		{0, 1, 32, 16 << 20, true, 0},
		{1, 1, 32, 16 << 20, true, 32},
		{1, 256, 1001, 16 << 20, true, 256},
		{1 << 20, 1, 32, 16 << 20, true, 16},
		{1 << 20, 2, 32, 16 << 20, true, 8},
		{1 << 20, 3, 32, 16 << 20, true, 0},
		{1, 1, 5000, 16 << 20, true, 1001},
		{1, 512, 32, 256 << 10, true, 8},
		{1, 513, 32, 256 << 10, true, 0},
		{1, 128, 32, 0, true, 32},
		{1, 1, 32, 0, false, 0},
		{1, 1, 32, -1, false, 0},
		{1, 1, 1001, 64 << 10, false, 1001},
		{1, 8, 1001, 64 << 10, false, 128},
		{1, 0, 32, 16 << 20, true, 0},
	} {
		p := &partition{limit: 1000, life: time.Hour, tried: readBytes}
		if tt.largest > 0 {
			p.sizes.saw(tt.largest)
		}
		if n := p.rangeable(tt.keys, tt.count, tt.hold, sharedBytes, tt.first); n != tt.want {
			t.Errorf("%+v: %d, want %d", tt, n, tt.want)
		}
	}
}

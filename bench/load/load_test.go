package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

var small = plan{
	Members: 5, Publishers: 2, Callers: 3, Window: 4, Idle: 7,
	Warmup: 10 * time.Millisecond, Measured: 20 * time.Millisecond, Settle: time.Millisecond,
}

// taken takes a sample from a fake.
func taken(t *testing.T, f *fake, measure measurement) (sample, error) {
	t.Helper()
	l, err := newLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	return measure(t.Context(), l, &cluster{nodes: []*server{f.serve(t)}}, small)
}

func TestRightCountsAreCounted(t *testing.T) {
	for _, f := range figures {
		if f.Cluster {
			continue
		}
		got, err := taken(t, &fake{deliver: correct, echo: correct}, f.Measure)
		if err != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
		if got.Count == 0 {
			t.Errorf("%s: nothing was counted", f.Name)
		}
	}
}

func TestWrongCountsAreErrors(t *testing.T) {
	lost := func(string) []string { return nil }
	repeated := func(m string) []string { return []string{m, m} }
	altered := func(m string) []string { return []string{strings.Replace(m, "fox", "dog", 1)} }
	renumbered := func(m string) []string { return []string{strings.Replace(m, `"n":`, `"n":9`, 1)} }
	tests := []struct {
		name    string
		faulty  *fake
		measure measurement
		want    string
	}{
		{"event lost", &fake{deliver: at(20, lost)}, measureRoom, "want"},
		{"event twice", &fake{deliver: at(20, repeated)}, measureRoom, "want"},
		{"event renumbered", &fake{deliver: at(20, renumbered)}, measureRoom, "want"},
		{"echo lost", &fake{echo: at(20, lost)}, measureEcho, "want"},
		{"echo twice", &fake{echo: at(20, repeated)}, measureEcho, "want"},
		{"echo altered", &fake{echo: at(20, altered)}, measureEcho, "a caller got"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := taken(t, tt.faulty, tt.measure)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// Arrivals that are missing at the end, when no later one shows the gap.
func TestRoomIsIncompleteUntilTheLastArrival(t *testing.T) {
	r := &room{members: []*member{{next: []int{0}}}, on: true}
	pub := &publisher{conn: &conn{}, missing: make([]int, 1)}
	r.publishers = []*publisher{pub}
	r.publish(pub)
	r.on = false
	if r.done() {
		t.Error("complete before anything arrived")
	}
	if err := r.ack(pub, []byte(`430[{"ok":true}]`)); err != nil {
		t.Fatal(err)
	}
	if r.done() {
		t.Error("complete without the delivery")
	}
	if err := r.deliver(r.members[0], []byte(`42["m",{"p":0,"n":0,"text":"x"},"offset"]`)); err != nil {
		t.Fatal(err)
	}
	if !r.done() {
		t.Error("not complete after the last arrival")
	}
}

func TestFrame(t *testing.T) {
	long := strings.Repeat("x", 300)
	stream := append([]byte{finText, 2, 'h', 'i', finText, len16, 300 >> 8, 300 & 0xff}, long...)
	for split := range stream {
		var got []string
		c := &conn{handle: func(m []byte) error { got = append(got, string(m)); return nil }}
		rest, err := c.dispatch(stream[:split])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.dispatch(append(bytes.Clone(rest), stream[split:]...)); err != nil {
			t.Fatal(err)
		}
		if len(got) != 2 || got[0] != "hi" || got[1] != long {
			t.Fatalf("split at %d: got %q", split, got)
		}
	}
	if _, _, err := frame([]byte{finClose, 0}); err == nil {
		t.Error("a close frame is not an error")
	}
}

func TestPingIsAnswered(t *testing.T) {
	c := &conn{}
	if _, err := c.dispatch([]byte{finText, 1, '2'}); err != nil {
		t.Fatal(err)
	}
	if want := appendFrame(nil, []byte("3")); !bytes.Equal(c.out, want) {
		t.Errorf("queued %q, want %q", c.out, want)
	}
}

func TestParseStat(t *testing.T) {
	const stat = "42 (a (strange) name) S 1 42 42 0 -1 4194560 1 2 3 4 150 25 0 0 20 0 5 0 100 1 2"
	user, sys, err := parseStat([]byte(stat))
	if err != nil || user != 1500*time.Millisecond || sys != 250*time.Millisecond {
		t.Errorf("got %v, %v, %v", user, sys, err)
	}
	if _, _, err := parseStat([]byte("42 (short) S 1")); err == nil {
		t.Error("a short stat is not an error")
	}
}

func TestMedian(t *testing.T) {
	if got := median([]sample{{Value: 30}, {Value: 10}, {Value: 20}}, value); got != 20 {
		t.Errorf("median %v, want 20", got)
	}
}

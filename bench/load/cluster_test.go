package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A client's offset is what came last in its last event, and its events are
// numbered without a gap.
func TestRoamer(t *testing.T) {
	c := &roamer{pid: "p"}
	c.conn = &conn{}
	event := func(n int) []byte { return fmt.Appendf(nil, `42["m",{"p":0,"n":%d,"text":"x"},"offset %d"]`, n, n) }
	for n, want := range []string{"offset 0", "offset 1"} {
		if err := c.event(event(n)); err != nil || c.offset != want {
			t.Fatalf("event %d: offset %q, %v", n, c.offset, err)
		}
	}
	for _, n := range []int{1, 3} {
		if err := c.event(event(n)); err == nil || c.heard != 2 {
			t.Errorf("event %d after event 1 is taken", n)
		}
	}
	for answer, want := range map[string]bool{`40{"sid":"s","pid":"p"}`: true, `40{"sid":"s","pid":"q"}`: false} {
		c := &roamer{pid: "p"}
		c.conn = &conn{}
		if err := c.greet([]byte(answer)); err != nil || !c.connected || c.recovered != want {
			t.Errorf("%s: connected %v, recovered %v, %v", answer, c.connected, c.recovered, err)
		}
	}
	if err := c.greet([]byte(`40{"sid":"s"}`)); err == nil {
		t.Error("a server without recovery is measured")
	}
}

func TestReconnectsWithItsOffset(t *testing.T) {
	c := &roamer{pid: "p", offset: "o"}
	c.conn = &conn{}
	if err := c.greet([]byte(`0{"sid":"e"}`)); err != nil {
		t.Fatal(err)
	}
	if want := appendFrame(nil, []byte(`40{"offset":"o","pid":"p"}`)); string(c.out) != string(want) {
		t.Errorf("sent %q", c.out)
	}
}

// The answer to the upgrade request comes in pieces, and a message behind it.
func TestUpgradeInPieces(t *testing.T) {
	const stream = "HTTP/1.1 101 Switching Protocols\r\nX: y\r\n\r\n\x81\x02hi"
	for split := range stream {
		var got []string
		c := &conn{hails: true, handle: func(m []byte) error { got = append(got, string(m)); return nil }}
		rest, err := c.dispatch([]byte(stream[:split]))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.dispatch(append(rest[:len(rest):len(rest)], stream[split:]...)); err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || got[0] != "hi" {
			t.Fatalf("split at %d: got %q", split, got)
		}
	}
	c := &conn{hails: true}
	if _, err := c.dispatch([]byte("HTTP/1.1 503 Service Unavailable\r\n\r\n")); err == nil {
		t.Error("a refusal is not an error")
	}
}

func TestCommands(t *testing.T) {
	calls := commands("# Commandstats\r\ncmdstat_xrange:calls=12,usec=3\r\ncmdstat_config|resetstat:calls=1,usec=3\r\n")
	if calls["xrange"] != 12 || calls["config|resetstat"] != 1 || len(calls) != 2 {
		t.Errorf("got %v", calls)
	}
}

func TestRatios(t *testing.T) {
	r := report{Samples: []sample{
		{Figure: "cut", Server: "a", Value: 2, Count: 1}, {Figure: "busy", Server: "a", Value: 3, Count: 1},
		{Figure: "killed", Server: "a", Value: 3}, {Figure: "idle", Server: "a", Value: 3, Count: 1},
	}}
	if got := r.String(); !strings.Contains(got, "a: busy is 1.50 times cut") || strings.Contains(got, "killed is") || strings.Contains(got, "idle is") {
		t.Errorf("got %s", got)
	}
}

func TestUsageOfNodes(t *testing.T) {
	before := usage{User: time.Second, Writes: 3, Wall: time.Minute, Load: time.Hour}
	after := before.plus(usage{User: time.Second, Allocs: 4}, 2)
	if got, want := after.plus(before, -1), (usage{User: 2 * time.Second, Allocs: 8}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

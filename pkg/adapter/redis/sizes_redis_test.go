package redis

import (
	"bytes"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A node that has seen only small events does not read large ones by their number if they
// were published to rooms without members on the node.
func TestLargeEventsOfOtherRooms(t *testing.T) {
	server := redistest.Start(t)
	a, b := start(t, server.URL(), "a", Options{}), start(t, server.URL(), "b", Options{})
	small := rooms.InNamed("/", "small")
	if _, err := b.Subscribe(t.Context(), small); err != nil {
		t.Fatal(err)
	}
	publish := func(room rooms.Room, size int) {
		t.Helper()
		if _, err := a.Publish(t.Context(), adapter.Event{
			Target: rooms.Target{To: []rooms.Room{room}}, Stored: true, Data: bytes.Repeat([]byte("x"), size),
		}); err != nil {
			t.Fatal(err)
		}
	}
	publish(small, 1)
	if _, err := b.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	from, err := b.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	after := make(map[rooms.Room]adapter.Cursor)
	for i := range 16 {
		room := rooms.InNamed("/", strconv.Itoa(i))
		after[room] = from
		for range 10 {
			publish(room, 100_000)
		}
	}
	end, err := b.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var read atomic.Int64
	events := 0
	for ev, err := range b.Replay(adapter.OnRead(t.Context(), func(bytes int) { read.Add(int64(bytes)) }), after, end, 1) {
		if err != nil {
			t.Fatal(err)
		}
		if ev.Omitted != 100_000 {
			t.Errorf("of %v %d bytes are left out, want 100_000", ev.Position, ev.Omitted)
		}
		events++
	}
	if events != 160 || read.Load() > 2*readBytes {
		t.Errorf("%d events, %d bytes read, want 160 and at most %d", events, read.Load(), 2*readBytes)
	}
}

// The sizes in Redis cover each event for the lifetime of a backlog, and expire after another
// lifetime.
func TestSizesInRedis(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{BacklogTTL: time.Hour})
	p := a.partitions[0]
	key := p.names.sizes(p.history())
	publish := func(size int) map[string]string {
		t.Helper()
		if _, err := a.Publish(t.Context(), adapter.Event{
			Target: rooms.Target{To: []rooms.Room{rooms.InNamed("/", "r")}}, Stored: true, Data: []byte(strings.Repeat("x", size)),
		}); err != nil {
			t.Fatal(err)
		}
		all, err := server.Client().HGetAll(t.Context(), key).Result()
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	if all := publish(1); len(all) != 0 {
		t.Errorf("a small event: %v", all)
	}
	if _, err := a.Publish(t.Context(), adapter.Event{
		Target: rooms.Target{To: []rooms.Room{rooms.InNamed("/", "r")}}, Data: bytes.Repeat([]byte("x"), 5000),
	}); err != nil {
		t.Fatal(err)
	}
	if all := publish(1); len(all) != 0 {
		t.Errorf("a large one that is not stored: %v", all)
	}
	var period, size string
	for p, s := range publish(1000) {
		period, size = p, s
	}
	n, err := strconv.Atoi(period)
	if kept, _ := strconv.Atoi(size); err != nil || kept < 1000 || kept > 1100 {
		t.Fatalf("an event of 1000 bytes: %q is %q", period, size)
	}
	for _, smaller := range []int{1, 500, 1000} {
		if all := publish(smaller); len(all) != 1 || all[period] != size {
			t.Errorf("then one of %d: %v", smaller, all)
		}
	}
	if all := publish(2000); len(all) != 1 || all[period] == size {
		t.Errorf("then one of 2000: %v", all)
	}
	if ttl := server.Client().PTTL(t.Context(), key).Val(); ttl <= time.Hour || ttl > 2*time.Hour {
		t.Errorf("it lives for %v, want more than %v, at most %v", ttl, time.Hour, 2*time.Hour)
	}
	before, older := strconv.Itoa(n-1), strconv.Itoa(n-2)
	if err := server.Client().HSet(t.Context(), key, before, 7000, older, 9000).Err(); err != nil {
		t.Fatal(err)
	}
	if err := server.Client().HDel(t.Context(), key, period).Err(); err != nil {
		t.Fatal(err)
	}
	if all := publish(300); len(all) != 2 || all[before] != "7000" || all[period] == "" {
		t.Errorf("in a new period: %v", all)
	}
	if _, err := a.Head(t.Context()); err != nil {
		t.Fatal(err)
	}
	if largest := p.sizes.largest(p.life); largest != 7000 {
		t.Errorf("the node takes %d for the largest, want 7000", largest)
	}
}

// Behind the first entries of a room, payloads that may not be held are not read.
func TestPayloadsBehindTheFirstEntries(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	room := rooms.InNamed("/", "r")
	from, err := a.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const events, size = 100, 1000
	for range events {
		if _, err := a.Publish(t.Context(), adapter.Event{
			Target: rooms.Target{To: []rooms.Room{room}}, Stored: true, Data: bytes.Repeat([]byte("x"), size),
		}); err != nil {
			t.Fatal(err)
		}
	}
	end, err := a.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var read atomic.Int64
	n := 0
	ctx := adapter.OnRead(t.Context(), func(bytes int) { read.Add(int64(bytes)) })
	for _, err := range a.Replay(ctx, map[rooms.Room]adapter.Cursor{room: from}, end, 1) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if most := int64(usuallyRead*(size+200) + events*200); n != events || read.Load() > most {
		t.Errorf("%d events, %d bytes read, want %d and at most %d", n, read.Load(), events, most)
	}
}

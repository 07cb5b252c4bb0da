package redis

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/batch"
	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis/internal/feed"
)

// TestCallsAreBounded: events with many copies, or to many rooms, are not published in one
// call.
func TestCallsAreBounded(t *testing.T) {
	repeat := func(n, rooms, bytes int) []content {
		return slices.Repeat([]content{{rooms: slices.Repeat([]string{"r/,room"}, rooms), payload: make([]byte, bytes)}}, n)
	}
	for name, tt := range map[string]struct {
		parcels []content
		calls   []int
	}{
		"Copies":   {slices.Concat(repeat(10, 100, 10_000), repeat(1, 100, callBytes/10), repeat(1, 1, callBytes-10_000)), []int{4, 4, 2, 1, 1}},
		"Rooms":    {slices.Concat(repeat(3, callRooms/2, 1), repeat(1, callRooms+1, 1), repeat(2, 1, 1)), []int{2, 1, 1, 2}},
		"Events":   {repeat(2*feed.PerCall+1, 1, 1), []int{feed.PerCall, feed.PerCall, 1}},
		"Messages": {slices.Repeat([]content{{inbox: "a", payload: []byte(strings.Repeat("x", callBytes/3))}}, 4), []int{3, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, end := context.WithCancel(t.Context())
			outbox := batch.New[content, outcome](ctx, batch.Options{})
			for _, c := range tt.parcels {
				if _, err := outbox.Put(ctx, c, c.size()); err != nil {
					t.Fatal(err)
				}
			}
			var l load
			var calls []int
			outbox.Serve(l.fits, func(all []*parcel) {
				if calls = append(calls, len(all)); len(calls) == len(tt.calls) {
					end()
				}
			})
			if items, bytes := outbox.Pending(); !slices.Equal(calls, tt.calls) || items != 0 || bytes != 0 {
				t.Errorf("calls have %v parcels, want %v; %d of %d bytes wait in an empty outbox", calls, tt.calls, items, bytes)
			}
		})
	}
}

// TestPublishedEventsAreCounted: each event counts once.
func TestPublishedEventsAreCounted(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{ProbeInterval: time.Hour})
	before := a.Stats()
	for i := range 3 {
		publish(t, a, event(fmt.Sprint(i), room("r")))
	}
	var events uint64
	var inCalls float64
	eventually(t, "all are counted", func() bool { // they are answered first
		after := a.Stats()
		events, inCalls = after.Published-before.Published, after.Batches.Sum-before.Batches.Sum
		return events >= 3
	})
	if events != 3 || inCalls != 3 {
		t.Errorf("%d events are counted, and %v in calls, want 3", events, inCalls)
	}
}

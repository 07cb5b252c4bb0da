package redis

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A replay that reads a room again, because it shared a read with one that misses too many events,
// does not take a backlog that has expired since for one without events.
func TestBacklogExpiresBeforeTheSecondRead(t *testing.T) {
	const life, limit = 2 * time.Second, 5
	server := redistest.Start(t)
	relay := newRelay(t, server.Addr)
	a := start(t, relay.url(), "a", Options{BacklogLimit: limit, BacklogTTL: life})
	early, err := a.Head(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	late := room("late")
	var at []adapter.Cursor
	for i := range limit + 2 {
		receipt, err := a.Publish(deadline(t), event(fmt.Sprint(i), late))
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, receipt.Cursor)
	}
	expired := time.Now().Add(life + 300*time.Millisecond)
	replay := func(room rooms.Room, from adapter.Cursor) (got int, err error) {
		for _, e := range a.Replay(deadline(t), map[rooms.Room]adapter.Cursor{room: from}, at[limit+1], 0) {
			if err = e; err == nil {
				got++
			}
		}
		return got, err
	}
	busy := make(chan struct{})
	var blocked, reads atomic.Int32
	relay.watch(func(_ *wire, sent []byte) {
		switch {
		case bytes.Contains(sent, []byte("busy")):
			blocked.Add(1)
			<-busy
		case bytes.Contains(sent, []byte("late")):
			if reads.Add(1) == 2 {
				time.Sleep(time.Until(expired)) // Redis forgets the backlog then
			}
		}
	})
	var all sync.WaitGroup
	defer all.Wait()
	goOn := sync.OnceFunc(func() { close(busy) })
	defer goOn()
	for i := range int32(backlogReaders) {
		all.Go(func() { _, _ = replay(room(fmt.Sprint("busy", i)), early) })
		eventually(t, "a reader is busy", func() bool { return blocked.Load() > i })
	}
	all.Go(func() {
		if _, err := replay(late, early); !errors.Is(err, adapter.ErrTrimmed) {
			t.Errorf("the replay that misses too many events: %v, want ErrTrimmed", err)
		}
	})
	all.Go(func() {
		if got, err := replay(late, at[limit-1]); got != 2 && !errors.Is(err, adapter.ErrTrimmed) {
			t.Errorf("got %d events and %v in %d reads, want 2 or ErrTrimmed", got, err, reads.Load())
		}
	})
	eventually(t, "both wait", func() bool {
		waiting, _ := a.partitions[0].backlogs.Pending()
		return waiting == 2
	})
	goOn()
}

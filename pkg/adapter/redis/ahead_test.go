package redis

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis/internal/feed"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// forge publishes a message that no node would publish.
func forge(t *testing.T, server *redistest.Server, channel, message string) {
	t.Helper()
	if n, err := server.Client().Publish(t.Context(), channel, message).Result(); n == 0 || err != nil {
		t.Fatalf("%d subscribers, %v", n, err)
	}
}

// A message whose position is ahead of the clock is refused, on each channel of a history.
// Later events are delivered, and no client is cut.
func TestMessageAheadOfTheClockIsRefused(t *testing.T) {
	for _, ms := range []string{"99999999999999-0", "18446744073709551615-18446744073709551615"} {
		t.Run(ms, func(t *testing.T) {
			server := redistest.Start(t)
			a, b := start(t, server.URL(), "a", Options{}), start(t, server.URL(), "b", Options{})
			r, s := room("r"), room("s")
			joined := subscribe(t, a, r, s)
			base := a.partitions[0].names.in(joined.Epoch)
			e := event("forged", r)
			payload, _ := encodeEvent(&e, 1)
			for i, message := range []struct{ name, text string }{
				{name(r), ms + " " + string(payload)},
				{name(r), ms + "~" + string(payload)},
				{probe("a"), ms + " "},
				{listsName, ms + " "},
			} {
				forge(t, server, base+message.name, message.text)
				for j, to := range []rooms.Room{r, s} {
					data := fmt.Sprint(i, j)
					publish(t, b, event(data, to))
					expect(t, a, data)
				}
				eventually(t, "the message is refused", func() bool { return a.Stats().Ahead == uint64(i)+1 })
			}
			if got := a.Stats(); a.Ready() != nil || got.Losses+got.Gaps+got.Generations+got.Epochs > 0 {
				t.Errorf("got %+v, ready: %v, want no loss, and ready", got, a.Ready())
			}
		})
	}
}

// A clock that is really ahead, as that of another host, costs one read: all stored and
// volatile events arrive in order.
func TestClockThatJumps(t *testing.T) {
	const n = 200
	server := redistest.Start(t)
	a, b := start(t, server.URL(), "a", Options{}), start(t, server.URL(), "b", Options{})
	r, s := room("r"), room("s")
	joined := subscribe(t, a, r, s)
	for jump := range 3 {
		ahead := time.Now().Add(time.Duration(jump+1) * time.Hour).UnixMilli()
		clock := a.partitions[0].names.clock(joined.Epoch)
		if err := server.Client().Do(t.Context(), "XADD", clock, fmt.Sprint(ahead, "-0"), "c", "jump").Err(); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			e := event(fmt.Sprint(i), r, s)
			e.Stored = i%2 == 0
			publish(t, b, e)
		}
		for i := range n {
			expect(t, a, fmt.Sprint(i))
		}
	}
	if got := a.Stats(); got.Ahead+got.Losses+got.Gaps+got.Generations+got.Epochs > 0 {
		t.Errorf("got %+v, want no loss", got)
	}
}

// More messages than may be held are a gap, which is read again.
func TestManyMessagesAheadOfTheClock(t *testing.T) {
	const n = 3 * feed.AheadMessages
	server := redistest.Start(t)
	a, b := start(t, server.URL(), "a", Options{}), start(t, server.URL(), "b", Options{})
	r := room("r")
	joined := subscribe(t, a, r)
	channel := a.partitions[0].names.room(joined.Epoch, name(r))
	e := event("forged", r)
	payload, _ := encodeEvent(&e, 1)
	for i := range 20 {
		pipe := server.Client().Pipeline()
		for range n / 20 {
			pipe.Publish(t.Context(), channel, "99999999999999-0 "+string(payload))
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		publish(t, b, event(fmt.Sprint(i), r))
	}
	for i := range 20 {
		expect(t, a, fmt.Sprint(i))
	}
	if got := a.Stats(); got.Losses+got.Epochs > 0 {
		t.Errorf("got %+v, want no loss", got)
	}
}

// A message slightly ahead of the clock is accepted at first. When it makes the feed drop a
// later message, the loss is reported.
func TestMessageSlightlyAheadIsALoss(t *testing.T) {
	server := redistest.Start(t)
	a, b := start(t, server.URL(), "a", Options{ProbeInterval: 100 * time.Millisecond}), start(t, server.URL(), "b", Options{})
	r := room("r")
	subscribe(t, a, r)
	at := publish(t, b, event("first", r))
	expect(t, a, "first")
	e := event("forged", r)
	payload, _ := encodeEvent(&e, 1)
	forge(t, server, a.partitions[0].names.room(at.Epoch, name(r)), fmt.Sprint(at.At.Ms+900, "-0 ", string(payload)))
	expect(t, a, "forged")
	if before := expectLoss(t, a); len(before) > 0 {
		t.Errorf("%q came before the loss was reported", before)
	}
	for e := publish(t, b, event("live", r)); ; {
		got, err := a.Next(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		if got.Position == e.At {
			break
		}
	}
	if got := a.Stats().Ahead; got != 1 {
		t.Errorf("%d messages ahead of the clock, want 1", got)
	}
}

// Many announcements of a new history start one search at a time.
func TestAnnouncementsShareSearches(t *testing.T) {
	const n = 20_000
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	subscribe(t, a, room("r"))
	before, most := runtime.NumGoroutine(), 0
	for i := range n / 1000 {
		pipe := server.Client().Pipeline()
		for j := range 1000 {
			pipe.Publish(t.Context(), a.partitions[0].names.news(), fmt.Sprint("epoch", i, j))
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		most = max(most, runtime.NumGoroutine())
	}
	publish(t, a, event("after them", room("r")))
	expect(t, a, "after them")
	if most = max(most, runtime.NumGoroutine()); most > before+20 {
		t.Errorf("got %d goroutines, and %d before, want at most %d", most, before, before+20)
	}
	if got := a.Stats(); got.Epochs > 0 || a.Ready() != nil {
		t.Errorf("got %+v, ready: %v, want the same history, and ready", got, a.Ready())
	}
}

// Malformed messages of other programs are counted, and sampled in the log.
func TestMalformedMessagesAreSampledInTheLog(t *testing.T) {
	const n = 2000
	server := redistest.Start(t)
	core, logs := observer.New(zap.WarnLevel)
	a := start(t, server.URL(), "a", Options{Logger: zap.New(core)})
	joined := subscribe(t, a, room("r"))
	began := time.Now()
	pipe := server.Client().Pipeline()
	for range n {
		pipe.Publish(t.Context(), a.partitions[0].names.inbox("a"), "\x02")
		pipe.Publish(t.Context(), a.partitions[0].names.in(joined.Epoch)+listsName, "99999999999999-0 ")
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all are counted", func() bool {
		got := a.Stats()
		return got.Malformed == n && (got.Ahead == n || got.Gaps > 0)
	})
	for _, text := range []string{"undecodable cluster message", "ahead of the clock"} {
		seconds := int(time.Since(began).Seconds()) + 2
		lines := 0
		for _, l := range logs.All() {
			if strings.Contains(l.Message, text) {
				lines++
			}
		}
		if lines == 0 || lines > 10*seconds {
			t.Errorf("%d lines with %q, want 1 to %d", lines, text, 10*seconds)
		}
	}
}

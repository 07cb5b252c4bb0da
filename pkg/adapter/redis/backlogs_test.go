package redis

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/internal/batch"
	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

func ms(n uint64) adapter.Position { return adapter.Position{Ms: n} }

// One read serves requesters at different positions, each with its own limit.
func TestSharedBacklog(t *testing.T) {
	const limit = 5
	backlogOf := func(after uint64, events ...uint64) *backlog {
		b := &backlog{after: ms(after), whole: len(events) <= limit}
		for _, n := range events {
			b.events = append(b.events, &adapter.Event{Position: ms(n)})
		}
		return b
	}
	bad := backlogOf(0, 1, 2, 4)
	bad.broken = []broken{{ms(3), errMalformed}}
	for _, tt := range []struct {
		name        string
		b           *backlog
		after, upTo uint64
		want        string
		unknown     bool
		err         error
	}{
		{name: "all of it", b: backlogOf(0, 1, 2, 3), after: 0, upTo: 9, want: "123"},
		{name: "from a later position", b: backlogOf(0, 1, 2, 3), after: 2, upTo: 9, want: "3"},
		{name: "up to an end", b: backlogOf(0, 1, 2, 3), after: 1, upTo: 2, want: "2"},
		{name: "nothing", b: backlogOf(0), after: 3, upTo: 9},
		{name: "nothing any more", b: backlogOf(0, 1, 2, 3), after: 3, upTo: 9},
		{name: "as many as may be", b: backlogOf(0, 1, 2, 3, 4, 5), after: 0, upTo: 9, want: "12345"},
		{name: "one more, whatever the end", b: backlogOf(0, 1, 2, 3, 4, 5, 6), after: 0, upTo: 1, err: adapter.ErrTrimmed},
		{name: "too many for another reader only", b: backlogOf(0, 1, 2, 3, 4, 5, 6), after: 4, upTo: 9, unknown: true},
		{name: "before what can't be decoded", b: bad, after: 0, upTo: 2, want: "12"},
		{name: "what can't be decoded", b: bad, after: 2, upTo: 3, err: errMalformed},
		{name: "over what can't be decoded", b: bad, after: 0, upTo: 9, err: errMalformed},
		{name: "behind what can't be decoded", b: bad, after: 3, upTo: 9, want: "4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			events, known, err := tt.b.missedBy(ms(tt.after), ms(tt.upTo), limit)
			if known == tt.unknown || !errors.Is(err, tt.err) {
				t.Fatalf("known: %v, %v", known, err)
			}
			got := ""
			for _, e := range events {
				got += fmt.Sprint(e.Position.Ms)
			}
			if err == nil && got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// Waiting requests share one pipeline: it reads a room once, from the smallest position,
// and skips requests that are no longer awaited.
func TestQueuedReadsAreMerged(t *testing.T) {
	owner, end := context.WithCancel(t.Context())
	q := batch.New[*backlogRequest, map[backlogID]*backlog](owner, batch.Options{})
	gone, leave := context.WithCancel(t.Context())
	wait := func(ctx context.Context, after uint64, names ...string) {
		from := make(map[string]adapter.Position)
		for _, n := range names {
			from[n] = ms(after)
		}
		if _, err := q.Put(ctx, &backlogRequest{ctx: ctx, epoch: "e", names: names, after: from}, 0); err != nil {
			t.Fatal(err)
		}
	}
	wait(t.Context(), 7, "a", "b")
	wait(gone, 1, "a")
	wait(t.Context(), 5, "b", "c")
	many := make([]string, readRooms)
	for i := range many {
		many[i] = fmt.Sprint("room ", i)
	}
	wait(t.Context(), 3, many...)
	leave()
	var from origins
	var read []origins
	var requests []int
	q.Serve(from.fits, func(all []*sharedRequest) {
		read, requests = append(read, from), append(requests, len(all))
		if len(read) == 2 {
			end()
		}
	})
	want := origins{{"e", "a"}: ms(7), {"e", "b"}: ms(5), {"e", "c"}: ms(5)}
	if requests[0] != 2 || !maps.Equal(read[0], want) {
		t.Errorf("the first pipeline answers %d requests, from %v, want 2, %v", requests[0], read[0], want)
	}
	if requests[1] != 1 || len(read[1]) != readRooms {
		t.Errorf("the second pipeline answers %d requests in %d rooms, want 1, %d", requests[1], len(read[1]), readRooms)
	}
}

// Many clients replay the same rooms concurrently, as after a node's death: each gets its
// own missed events.
func TestReplaysShareReads(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{BacklogLimit: 30})
	const events, readers = 40, 400 // more than the limit, so requests from the earliest positions are refused
	cursors := make([]adapter.Cursor, events)
	for i := range cursors {
		r, err := a.Publish(deadline(t), event(fmt.Sprint(i), room("shared")))
		if err != nil {
			t.Fatal(err)
		}
		cursors[i] = r.Cursor
	}
	begin := make(chan struct{})
	var all sync.WaitGroup
	for i := range readers {
		all.Go(func() {
			<-begin
			first := i % events // the last event that this requester has seen
			next := first + 1
			for e, err := range a.Replay(deadline(t), map[rooms.Room]adapter.Cursor{room("shared"): cursors[first]}, cursors[events-1], 0) {
				if refused := events-1-first > 30; refused || err != nil {
					if !refused || !errors.Is(err, adapter.ErrTrimmed) {
						t.Errorf("after event %d: %v", first, err)
					}
					return
				}
				if string(e.Data) != fmt.Sprint(next) {
					t.Errorf("after event %d: %s, want %d", first, e.Data, next)
					return
				}
				next++
			}
			if next != events {
				t.Errorf("after event %d: %d was not replayed, want %d", first, next, events)
			}
		})
	}
	close(begin)
	all.Wait()
}

// Backlogs that do not fit in one call are read in several: every event arrives, with or
// without its payload.
func TestBacklogsAreReadInParts(t *testing.T) {
	const limit = 60
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{BacklogLimit: limit})
	begin, err := a.Head(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	after := make(map[rooms.Room]adapter.Cursor)
	sizes := make(map[string]int)
	for i := range 4 * limit {
		r := room(fmt.Sprint("r", i%5))
		after[r] = begin
		size := []int{10, 1000, 30_000, readBytes / 3}[random.IntN(4)]
		if i%5 == 4 {
			size = 1 + i // the last room has small events only
		}
		data := fmt.Sprintf("%d %s", i, strings.Repeat("x", size))
		if _, err := a.Publish(deadline(t), event(data, r)); err != nil {
			t.Fatal(err)
		}
		sizes[fmt.Sprint(i)] = len(data)
	}
	after[room("empty")] = begin
	end, err := a.Head(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, payload := range []int{0, readBytes, 100} {
		next, held := 0, 0
		for e, err := range a.Replay(deadline(t), after, end, payload) {
			if err != nil {
				t.Fatal(err)
			}
			data := string(e.Data)
			if held += len(data); e.Omitted > 0 {
				fetched, err := a.Fetch(deadline(t), end, []adapter.Place{{Room: e.Target.To[0], At: e.Position}})
				if err != nil {
					t.Fatal(err)
				}
				data = string(fetched[0].Data)
			}
			number, _, _ := strings.Cut(data, " ")
			if number != fmt.Sprint(next) || sizes[number] != len(data) || e.Omitted > 0 && int(e.Omitted) != len(data) {
				t.Fatalf("with %d bytes: event %d is %s, of %d bytes", payload, next, number, len(data))
			}
			next++
		}
		if next != 4*limit || payload > 0 && held > payload {
			t.Errorf("with %d bytes: %d events, %d bytes held", payload, next, held)
		}
	}
	for i := range 2 * limit {
		if _, err := a.Publish(deadline(t), event(strings.Repeat("y", i*300), room("r0"))); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range a.Replay(deadline(t), after, end, 0) {
		if !errors.Is(err, adapter.ErrTrimmed) {
			t.Fatalf("more than the limit: %v", err)
		}
	}
}

// Replays of many events are read one after the other, and small ones concurrently.
func TestManyEvents(t *testing.T) {
	const roomCount, limit = 60, 300 // more than manyEntries
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{BacklogLimit: limit})
	begin, err := a.Head(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	after := map[rooms.Room]adapter.Cursor{room("small"): begin}
	var all []rooms.Room
	for i := range roomCount {
		all = append(all, room(fmt.Sprint("r", i)))
		after[all[i]] = begin
	}
	for i := range limit {
		if _, err := a.Publish(deadline(t), event(fmt.Sprint(i), all...)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Publish(deadline(t), event("small", room("small"))); err != nil {
		t.Fatal(err)
	}
	end, err := a.Head(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	var replays sync.WaitGroup
	for range 4 {
		replays.Go(func() {
			n := 0
			for e, err := range a.Replay(deadline(t), after, end, 1000) {
				if n == 0 && len(a.large) != 1 {
					t.Error("many events are held out of turn")
				}
				if err != nil || len(e.Target.To) != roomCount && n < limit {
					t.Errorf("event %d: %v, to %d rooms", n, err, len(e.Target.To))
					return
				}
				n++
			}
			if n != limit+1 {
				t.Errorf("got %d events, want %d", n, limit+1)
			}
		})
		replays.Go(func() {
			n := 0
			for _, err := range a.Replay(deadline(t), map[rooms.Room]adapter.Cursor{room("small"): begin}, end, 1000) {
				if err != nil {
					t.Error(err)
				}
				n++
			}
			if n != 1 {
				t.Errorf("got %d events, want 1", n)
			}
		})
	}
	replays.Wait()
	if len(a.large) > 0 {
		t.Error("the turn is not over")
	}
	ctx, cancel := context.WithCancel(t.Context())
	a.large <- struct{}{}
	go func() { // while it waits for its turn
		for range 1000 {
			runtime.Gosched()
		}
		cancel()
	}()
	for _, err := range a.Replay(ctx, after, end, 1000) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("with an ended context: %v, want context.Canceled", err)
		}
	}
	<-a.large
}

// netOutput returns how many bytes Redis has sent.
func netOutput(t *testing.T, server *redistest.Server) (n int) {
	t.Helper()
	info, err := server.Client().Info(deadline(t), "stats").Result()
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(info, "total_net_output_bytes:")
	if _, err := fmt.Sscan(after, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Redis sends the payloads that are held, and that of an event's copies once. Of other
// events it sends only the fields that determine the receivers. The bytes read are
// reported.
func TestPayloadsThatAreNotHeldAreNotRead(t *testing.T) {
	const events, size, hold = 25, 8000, 64 << 10
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	begin, err := a.Head(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	after := make(map[rooms.Room]adapter.Cursor)
	var all []rooms.Room
	for i := range 20 {
		all = append(all, room(fmt.Sprint("r", i)))
		after[all[i]] = begin
	}
	want := make([]adapter.Event, events)
	for i := range want {
		want[i] = event(fmt.Sprint(i, strings.Repeat("x", size)), all[:1+i%len(all)]...)
		want[i].Attachments = [][]byte{{byte(i)}, nil}
		want[i].Target.Except = []rooms.Room{room("not here"), room(fmt.Sprint("nor there ", i))}
		if _, err := a.Publish(deadline(t), want[i]); err != nil {
			t.Fatal(err)
		}
	}
	end, err := a.Head(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	var reported atomic.Int64
	ctx := adapter.OnRead(deadline(t), func(bytes int) { reported.Add(int64(bytes)) })
	before, n, held := netOutput(t, server), 0, 0
	var places []adapter.Place
	for e, err := range a.Replay(ctx, after, end, hold) {
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(e.Target.Except, want[n].Target.Except) || e.Omitted == 0 && string(e.Data) != string(want[n].Data) || len(e.Target.To) != 1+n%len(all) {
			t.Errorf("event %d is %.200v", n, e)
		}
		if e.Omitted > 0 && int(e.Omitted) != payloadSize(&want[n]) {
			t.Errorf("event %d lacks %d bytes, has %d", n, e.Omitted, payloadSize(&want[n]))
		}
		n++
		held += payloadSize(&e)
		places = append(places, adapter.Place{Room: e.Target.To[0], At: e.Position})
	}
	if n != events || held == 0 || held > hold {
		t.Errorf("%d events, %d bytes held", n, held)
	}
	entries := 0
	for i := range want {
		entries += 1 + i%len(all)
	}
	sent, told := netOutput(t, server)-before, int(reported.Load())
	if most := hold + 150*entries; sent > most {
		t.Errorf("Redis has sent %d bytes, want %d at most", sent, most)
	}
	if told < sent/2 || told > 2*sent {
		t.Errorf("%d bytes are reported, %d were sent, want at least %d, at most %d", told, sent, sent/2, 2*sent)
	}
	reported.Store(0)
	if _, err := a.Fetch(ctx, end, places); err != nil {
		t.Fatal(err)
	}
	if got := reported.Load(); got < events*size || got > events*(size+200) {
		t.Errorf("%d bytes are reported of %d fetched, want at least %d, at most %d", got, events*size, events*size, events*(size+200))
	}
}

// endsAfter is a context that ends after a number of calls of Err.
type endsAfter struct {
	context.Context
	looks int
}

func (c *endsAfter) Err() error {
	if c.looks--; c.looks < 0 {
		return context.Canceled
	}
	return nil
}

// A shared read ends between two calls if no requester waits any more, or if there are too
// many entries. The bytes read are shared among the requesters.
func TestSharedReadEndsWithItsCallers(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	p := a.partitions[0]
	for range 20 {
		if _, err := a.Publish(deadline(t), event(strings.Repeat("x", readBytes/2), room("r"), room("s"))); err != nil {
			t.Fatal(err)
		}
	}
	epoch := p.history()
	read := func(ctx context.Context, most, requests int) (*reading, *backlogRequest, error) {
		from := make(map[backlogID]adapter.Position)
		r := &backlogRequest{ctx: ctx, epoch: epoch, names: []string{name(room("r")), name(room("s"))}, hold: 1000, most: most}
		for _, n := range r.names {
			from[backlogID{epoch, n}] = adapter.Position{}
		}
		found, err := p.readBacklogs(t.Context(), slices.Repeat([]*backlogRequest{r}, requests), from)
		return found, r, err
	}
	if found, _, err := read(&endsAfter{t.Context(), 1}, 100, 1); !errors.Is(err, context.Canceled) || found.entries() == 0 || found.entries() == 40 {
		t.Errorf("%d entries are read for a requester that has gone: %v", found.entries(), err)
	}
	if found, _, err := read(t.Context(), 15, 1); !errors.Is(err, errManyEntries) || found.entries() == 40 {
		t.Errorf("%d entries are read of 15: %v", found.entries(), err)
	}
	alone, r, err := read(t.Context(), 40, 1)
	if err != nil || alone.entries() != 40 {
		t.Fatalf("%d entries are read: %v, want 40", alone.entries(), err)
	}
	shared, _, err := read(t.Context(), 40, 4)
	if one, part := alone.share(r), shared.share(r); err != nil || part < one/5 || part > one/4 {
		t.Errorf("a share of 4 is %d bytes, of one %d: %v", part, one, err)
	}
}

// request asks for rooms from before the test, for a batch.
func request(t *testing.T, p *partition, most int, names ...string) *backlogRequest {
	r := &backlogRequest{ctx: t.Context(), epoch: p.history(), after: make(map[string]adapter.Position), hold: 64 << 10, most: most, lists: new(atomic.Int64)}
	for _, n := range names {
		r.names = append(r.names, name(room(n)))
		r.after[name(room(n))] = ms(uint64(time.Now().Add(-10 * time.Minute).UnixMilli()))
	}
	return r
}

// answered reads for requests together, and returns their answers.
func answered(t *testing.T, p *partition, requests ...*backlogRequest) (found []map[backlogID]*backlog, errs []error) {
	owner, end := context.WithCancel(t.Context())
	q := batch.New[*backlogRequest, map[backlogID]*backlog](owner, batch.Options{})
	var waiting []*sharedRequest
	for _, r := range requests {
		s, err := q.Put(t.Context(), r, 0)
		if err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, s)
	}
	var from origins
	q.Serve(from.fits, func(all []*sharedRequest) {
		if end(); len(all) != len(requests) {
			t.Errorf("%d of %d requests are read together, want %d", len(all), len(requests), len(requests))
		}
		p.answerReads(all, from)
	})
	for _, s := range waiting {
		f, err := s.Wait()
		found, errs = append(found, f), append(errs, err)
	}
	return found, errs
}

// Each of several requests that are read together is judged by its own entries, and each is
// answered if all of them together have too many.
func TestManyEntriesTogether(t *testing.T) {
	const requests, roomsOfEach = 16, readRooms / 16
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	p := a.partitions[0]
	names := make([]string, readRooms)
	all := make([]rooms.Room, readRooms)
	for i := range all {
		names[i] = fmt.Sprint("r", i)
		all[i] = room(names[i])
	}
	for published, total := range []int{manyEntries/readRooms + 8, sharedEntries/readRooms + 8} {
		for range total - published*(manyEntries/readRooms+8) {
			publish(t, a, event("x", all...))
		}
		var small []*backlogRequest
		for i := range requests {
			small = append(small, request(t, p, manyEntries, names[i*roomsOfEach:(i+1)*roomsOfEach]...))
		}
		large, other := request(t, p, manyEntries, names[1:]...), request(t, p, manyEntries, names[0])
		found, errs := answered(t, p, small...)
		for i, err := range errs {
			if err != nil {
				t.Errorf("%d entries: request %d: %v", total*readRooms, i, err)
				continue
			}
			r := small[i]
			for _, n := range r.names {
				if events, known, err := found[i][backlogID{r.epoch, n}].missedBy(adapter.Position{}, ms(math.MaxUint64), p.limit); len(events) != total || !known || err != nil {
					t.Errorf("%d entries: %d events in %s, known: %v: %v", total*readRooms, len(events), n, known, err)
				}
			}
		}
		if _, errs := answered(t, p, large, other); !errors.Is(errs[0], errManyEntries) || errs[1] != nil {
			t.Errorf("%d entries: the request of all rooms: %v, that of one: %v", total*readRooms, errs[0], errs[1])
		}
	}
}

// listed is an event whose lists, of about 200 kB, are stored separately.
func listed(data string, to ...rooms.Room) adapter.Event {
	e := event(data, to...)
	for i := range 1000 {
		e.Target.Except = append(e.Target.Except, room(fmt.Sprint(i, strings.Repeat("x", 200))))
	}
	return e
}

// Lists that are too large fail only their own request: no other request of the same read,
// and no other room of a catch-up. They are charged even if the read ends because of them.
func TestLargeListsRefuseNobodyElse(t *testing.T) {
	server := redistest.Start(t)
	relay := newRelay(t, server.Addr)
	a, b := start(t, relay.url(), "a", Options{ReplayBytes: 1 << 20}), start(t, server.URL(), "b", Options{})
	p := a.partitions[0]
	loud, quiet := room("loud"), room("quiet")
	begin := subscribe(t, a, loud, quiet)
	fill := relay.hole(subscriber) // also for the next connection
	relay.cut(subscriber)
	for range 20 {
		publish(t, b, listed("loud", loud, room("of nobody")))
	}
	end := publish(t, b, listed("quiet", quiet, room("of nobody")))

	large, small := request(t, p, manyEntries, "loud"), request(t, p, manyEntries, "quiet")
	var charged int
	large.ctx = adapter.OnRead(t.Context(), func(bytes int) { charged += bytes })
	if _, errs := answered(t, p, large, small); !errors.Is(errs[0], errManyEntries) || errs[1] != nil {
		t.Errorf("the request with large lists: %v, the other: %v", errs[0], errs[1])
	}
	if charged < 2<<20 { // it was read with the other and alone
		t.Errorf("%d bytes are charged, want at least %d", charged, 2<<20)
	}
	for r, want := range map[rooms.Room]error{loud: adapter.ErrTooMany, quiet: nil} {
		var got error
		for _, err := range a.Replay(deadline(t), map[rooms.Room]adapter.Cursor{r: begin}, end, 1000) {
			got = err
		}
		if !errors.Is(got, want) {
			t.Errorf("a replay of %s: %v, want %v", r.Name, got, want)
		}
	}
	fill()
	expectRoomsLost(t, a, loud)
	expect(t, a, "quiet")
}

// A copy of an undecodable event is undecodable for the same reason.
func TestCopiesOfNewerEvents(t *testing.T) {
	if d := (decoded{err: adapter.ErrNewerVersion}).in(&backlog{}); !errors.Is(d.err, adapter.ErrNewerVersion) {
		t.Error(d.err)
	}
	if d := (decoded{}).in(&backlog{}); !errors.Is(d.err, errMalformed) {
		t.Error(d.err)
	}
}

// The script reads few entries at a time if the node knows large ones, because these can
// follow many small ones.
func TestRangesOfTheScriptAreBounded(t *testing.T) {
	const small, large, size = 84, 40, readBytes / 2
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	p := a.partitions[0]
	for range small {
		publish(t, a, event("x", room("r")))
	}
	for range large {
		publish(t, a, event(strings.Repeat("x", size), room("r")))
	}
	if err := server.Client().ConfigResetStat(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	keys, args := p.scriptArgs([]*backlog{{key: p.names.room(p.history(), name(room("r"))), last: "0-0"}}, 0, readBytes)
	reply, err := missedScript.Run(t.Context(), server.Client(), keys, args...).Slice()
	if err != nil {
		t.Fatal(err)
	}
	list, _ := reply[1].([]any)
	info, err := server.Client().Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	_, after, _ := strings.Cut(info, "cmdstat_xrange:calls=")
	if _, err := fmt.Sscan(strings.NewReplacer(",", " ").Replace(after), &calls); err != nil {
		t.Fatal(err)
	}
	const most = 4 * readBytes / size
	if entries := len(list) / 2; entries <= small || calls*most < entries {
		t.Errorf("%d entries are read in %d ranges, want %d at most in one", entries, calls, most)
	}
}

// Requesters share events without payloads: hundreds of them can miss thousands of events each.
func TestOmittedEventsAreShared(t *testing.T) {
	var b backlog
	ev := event("some data", room("r"))
	e := &ev
	bare := b.omit(e)
	if b.omit(e) != bare {
		t.Error("a second requester gets its own copy")
	}
	if len(bare.Data) > 0 || bare.Omitted == 0 || len(e.Data) == 0 {
		t.Errorf("got %+v without payload, of %+v", bare, e)
	}
}

// An entry that lists millions of rooms or attachments is malformed. Redis must not iterate over all
// of them, and sends only their number.
func TestTheScriptDoesNotCountForever(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	p := a.partitions[0]
	const n = 4 << 20
	many := binary.AppendUvarint(nil, n)
	for name, entry := range map[string]string{
		"rooms":       "\x02\x00\x00\x01\x00\x00" + string(many) + strings.Repeat("\x00", 3*n),
		"attachments": "\x02\x00\x00\x01\x00\x00\x00\x00\x01x" + string(many) + strings.Repeat("\x00", n),
	} {
		key := p.names.room(p.history(), "x"+name)
		if err := server.Client().XAdd(t.Context(), &goredis.XAddArgs{Stream: key, ID: "1-1", Values: []any{"e", entry}}).Err(); err != nil {
			t.Fatal(err)
		}
		keys, args := p.scriptArgs([]*backlog{{key: key, last: "0-0"}}, 0, readBytes)
		var reply []any
		eventually(t, "Redis takes less time than it needs to count them", func() bool { // it may have to wait for a processor
			before := scriptTime(t, server)
			var err error
			if reply, err = missedScript.Run(t.Context(), server.Client(), keys, args...).Slice(); err != nil {
				t.Fatal(err)
			}
			return scriptTime(t, server)-before <= n/20
		})
		list, _ := reply[1].([]any)
		if got := fmt.Sprint(list); got != fmt.Sprintf("[1-1 [%s %d]]", entry[:4], len(entry)) {
			t.Errorf("%s: got %.100q", name, got)
		}
		var b backlog
		p.add(&b, "1-1", p.decodeHead(&b, entry[:4], len(entry)))
		if len(b.broken) != 1 || !errors.Is(b.broken[0].err, adapter.ErrUndecodable) {
			t.Errorf("%s: broken %v", name, b.broken)
		}
	}
}

// scriptTime returns the CPU time, in microseconds, that Redis has used in scripts.
func scriptTime(t *testing.T, server *redistest.Server) (sum int) {
	t.Helper()
	info, err := server.Client().Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"eval", "evalsha"} {
		var calls, used int
		if _, after, found := strings.Cut(info, "cmdstat_"+name+":"); found {
			if _, err := fmt.Sscanf(after, "calls=%d,usec=%d", &calls, &used); err != nil {
				t.Fatal(err)
			}
			sum += used
		}
	}
	return sum
}

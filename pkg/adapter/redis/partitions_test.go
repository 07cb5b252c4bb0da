package redis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

func TestTagsShareTheSlotsEvenly(t *testing.T) {
	if s := slot("123456789"); s != 0x31c3%slots { // the check value of CRC-16/XMODEM
		t.Fatalf("the slot of 123456789 is %d, want %d", s, 0x31c3%slots)
	}
	for _, partitions := range []int{1, 2, 3, 6, 12, 64} {
		list := tags(partitions)
		for _, masters := range []int{1, 2, 3, 4, 6} {
			count := make([]int, masters)
			for _, tag := range list {
				count[slot(tag)*masters/slots]++
			}
			if least := slices.Min(count); slices.Max(count)-least > 1 {
				t.Errorf("%d partitions on %d masters: %v", partitions, masters, count)
			}
		}
	}
}

// Members in rooms of several partitions are cut repeatedly, and events go to several of
// these rooms: each member gets its events once, and in order within each partition.
func TestPartitionsReplayAndFeedMeet(t *testing.T) {
	server := redistest.Start(t)
	c := newCluster(t, server.URL(), func() []*redistest.Server { return []*redistest.Server{server} },
		Options{Partitions: 3, BacklogLimit: 100_000})
	var all []rooms.Room
	for i := range 6 {
		all = append(all, rooms.InNamed("/", fmt.Sprint("r", i)))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var publishing sync.WaitGroup
	var over atomic.Bool
	stop := func() { // not in the middle of a call: its event may have come to a member
		over.Store(true)
		publishing.Wait()
	}
	defer stop()
	join := func(id string) *Adapter {
		a, err := c.Node(adapter.NodeID(id))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = a.Close() })
		return a.(*Adapter)
	}

	const publishers, members, lives = 3, 3, 25
	published := make([][]sent, publishers)
	for i := range publishers {
		a, rng := join(fmt.Sprint("publisher", i)), rand.New(rand.NewPCG(uint64(i), 7))
		publishing.Go(func() {
			for n := 0; !over.Load(); n++ {
				to := pick(rng, all)
				r, err := a.Publish(ctx, adapter.Event{Target: rooms.Target{To: to}, Stored: true, Data: fmt.Append(nil, i, " ", n)})
				if err != nil {
					t.Errorf("Publish: %v", err)
					return
				}
				published[i] = append(published[i], sent{fmt.Sprint(i, " ", n), to, r.Cursor})
			}
		})
	}
	got := make([]*witness, members)
	var living sync.WaitGroup
	for i := range members {
		w := &witness{Adapter: join(fmt.Sprint("member", i)), rng: rand.New(rand.NewPCG(uint64(i), 11)), joined: make(map[rooms.Room]adapter.Cursor)}
		got[i] = w
		living.Go(func() {
			for n := range lives {
				if err := w.live(ctx, all); err != nil {
					t.Errorf("%s, life %d: %v", w.Node(), n, err)
					return
				}
			}
		})
	}
	living.Wait()
	stop()
	if t.Failed() {
		return
	}
	for _, w := range got {
		w.check(t, published)
	}
}

// sent is an event as its publisher knows it. In the partitions of its rooms the
// cursor is at its copies.
type sent struct {
	data string
	to   []rooms.Room
	at   adapter.Cursor
}

func pick(rng *rand.Rand, all []rooms.Room) []rooms.Room {
	list := slices.Clone(all)
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:1+rng.IntN(3)]
}

// A witness is alone on its node and sees events as a client does.
type witness struct {
	*Adapter
	rng    *rand.Rand
	joined map[rooms.Room]adapter.Cursor
	seen   adapter.Cursor // the client's offset
	got    []adapter.Event
}

// live is one connection: it recovers, joins one more room, gets some events, and is cut;
// later events, up to a marker in every partition, are for no connection.
func (w *witness) live(ctx context.Context, all []rooms.Room) error {
	in := slices.Collect(maps.Keys(w.joined))
	var end adapter.Cursor
	if len(in) > 0 {
		if _, err := w.Subscribe(ctx, in...); err != nil {
			return err
		}
		// An offset is a string.
		seen, err := adapter.ParseCursor(w.seen.String())
		if err != nil || seen != w.seen {
			return fmt.Errorf("the offset %v is decoded as %v, %v", w.seen, seen, err)
		}
		if end, err = w.Head(ctx, w.seen); err != nil {
			return err
		}
		after := make(map[rooms.Room]adapter.Cursor)
		for r, joined := range w.joined {
			after[r] = joined.Max(w.seen)
		}
		for e, err := range w.Replay(ctx, after, end, 0) {
			if err != nil {
				return err
			}
			if w.wants(&e) {
				w.take(e, e.Cursor)
			}
		}
	}
	if r := all[w.rng.IntN(len(all))]; w.joined[r].IsZero() {
		joined, err := w.Subscribe(ctx, r)
		if err != nil {
			return err
		}
		in, w.joined[r] = append(in, r), joined
		if w.seen.IsZero() {
			w.seen = joined
		}
	}
	for range 1 + w.rng.IntN(30) {
		e, err := w.Next(ctx)
		if err != nil {
			return err
		}
		if !end.Covers(e.Position) && w.wants(&e) {
			w.take(e, e.Cursor.Max(w.seen)) // the replay may have been ahead of the feed
		}
	}
	w.Unsubscribe(in...)
	return w.drain(ctx)
}

// drain reads the feed up to now, in all partitions.
func (w *witness) drain(ctx context.Context) error {
	r, err := w.Publish(ctx, adapter.Event{Target: rooms.Target{To: []rooms.Room{rooms.InNodes()}}})
	if err != nil {
		return err
	}
	for {
		e, err := w.Next(ctx)
		if err != nil || e.Position == r.Cursor.At {
			return err
		}
	}
}

func (w *witness) wants(e *adapter.Event) bool {
	return e.For(func(r rooms.Room, at adapter.Position) bool {
		joined, in := w.joined[r]
		return in && !joined.Covers(at)
	})
}

func (w *witness) take(e adapter.Event, offset adapter.Cursor) {
	w.got = append(w.got, e)
	w.seen = offset
}

func (w *witness) check(t *testing.T, published [][]sent) {
	newest := make(map[uint16]adapter.Position)
	times := make(map[string]int)
	for _, e := range w.got {
		if e.Position.Compare(newest[e.Position.Partition]) <= 0 {
			t.Errorf("%s: %q is at %v, after %v", w.Node(), e.Data, e.Position, newest[e.Position.Partition])
		}
		newest[e.Position.Partition] = e.Position
		times[string(e.Data)]++
	}
	missed, doubled := 0, 0
	for _, list := range published {
		for _, s := range list {
			// The event is due at the first copy behind a join, if the offset has come as
			// far.
			wanted := false
			for i := uint16(0); i < 3 && !wanted; i++ {
				in := slices.ContainsFunc(s.to, func(r rooms.Room) bool {
					joined, in := w.joined[r]
					return in && adapter.Home(name(r), 3) == i && !joined.Covers(s.at.In(i))
				})
				wanted = in && w.seen.Covers(s.at.In(i))
				if in {
					break
				}
			}
			switch n := times[s.data]; {
			case n > 1:
				doubled++
			case wanted && n == 0:
				missed++
			case !wanted && n > 0:
				t.Errorf("%s: %q is not for it", w.Node(), s.data)
			}
			delete(times, s.data)
		}
	}
	if len(times) > 0 {
		t.Errorf("%s got an event that was not published: %v", w.Node(), times)
	}
	if missed+doubled > 0 {
		t.Errorf("%s got %d events, %d of them doubled, and missed %d", w.Node(), len(w.got), doubled, missed)
	}
	if len(w.got) < 100 {
		t.Errorf("%s: only %d events: this proves little, want at least 100", w.Node(), len(w.got))
	}
}

func TestPartitionsAgree(t *testing.T) {
	server := redistest.Start(t)
	c := newCluster(t, server.URL(), nil, Options{Partitions: 3})
	a, err := c.Node("a")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	c.o.Partitions = 2
	if _, err := c.Node("b"); !errors.Is(err, ErrPartitions) {
		t.Errorf("a node with another number of partitions: %v, want ErrPartitions", err)
	}
}

// The receipt of an event in several partitions names its positions, as the event itself
// does for its receivers.
func TestReceiptNamesCopies(t *testing.T) {
	server := redistest.Start(t)
	c := newCluster(t, server.URL(), nil, Options{Partitions: 3})
	joined, err := c.Node("a")
	if err != nil {
		t.Fatal(err)
	}
	defer joined.Close()
	a := joined.(*Adapter)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all []rooms.Room
	for i := range 20 { // in all partitions
		all = append(all, rooms.InNamed("/", fmt.Sprint("r", i)))
	}
	if _, err := a.Subscribe(ctx, all...); err != nil {
		t.Fatal(err)
	}
	receipt, err := a.Publish(ctx, adapter.Event{Target: rooms.Target{To: all}})
	if err != nil || len(receipt.Copies) != 3 {
		t.Fatalf("got %+v, %v, want 3 copies", receipt, err)
	}
	for range receipt.Copies {
		e, err := a.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(receipt.Copies, func(c adapter.Copy) bool { return c.At == e.Position }) {
			t.Errorf("the copy at %+v is not in the receipt", e.Position)
		}
	}
	if receipt, err = a.Publish(ctx, adapter.Event{Target: rooms.Target{To: all[:1]}}); err != nil || receipt.Copies != nil {
		t.Errorf("an event in one partition: %+v, %v", receipt, err)
	}
}

// The limit of a replay's reads is divided among the partitions, because they are read
// concurrently.
func TestReplayBytesAreDivided(t *testing.T) {
	const partitions, most = 4, 1 << 20
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{Partitions: partitions, ReplayBytes: most})
	begin, err := a.Head(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	after := make(map[rooms.Room]adapter.Cursor)
	for i := range 40 { // in all partitions, half of the limit in each
		r := room(fmt.Sprint("r", i))
		after[r] = begin
		publish(t, a, event(strings.Repeat("x", most/20), r))
	}
	end, err := a.Head(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	var got error
	for _, err := range a.Replay(deadline(t), after, end, 0) {
		got = err
	}
	if !errors.Is(got, adapter.ErrTrimmed) {
		t.Errorf("a replay of twice the limit: %v, want adapter.ErrTrimmed", got)
	}
}

package adapter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// The wire depends on it: nodes of different releases look for a room in the same partition.
func TestHome(t *testing.T) {
	for key, want := range map[string]uint16{"n,": 5, "e/,": 3, "r/,room": 3, "r/chat,lobby": 2, "o/,socket": 2} {
		if got := Home(key, 6); got != want {
			t.Errorf("%q is in partition %d of 6, want %d", key, got, want)
		}
	}
}

func TestCombineEpochs(t *testing.T) {
	if got := CombineEpochs([]string{"A"}); got != "A" {
		t.Errorf(`of one partition: %q, want "A"`, got)
	}
	all := make(map[string]bool)
	for _, epochs := range [][]string{{"A", "B", "C"}, {"A", "B", "D"}, {"B", "A", "C"}} {
		if all[CombineEpochs(epochs)] = true; !isEpoch(CombineEpochs(epochs)) {
			t.Errorf("%q is not an epoch", CombineEpochs(epochs))
		}
	}
	if len(all) != 3 {
		t.Errorf("three histories have %d epochs, want 3", len(all))
	}
}

// A spied partition records calls, and fails if it is told to.
type spied struct {
	Partition
	err error

	mu           sync.Mutex
	published    []Event
	unsubscribed []rooms.Room
	looked       []Position
	condemned    []Position
	payloads     []int
}

func (s *spied) Publish(ctx context.Context, e Event) (Receipt, error) {
	s.published = append(s.published, e)
	if s.err != nil {
		return Receipt{}, s.err
	}
	return s.Partition.Publish(ctx, e)
}

func (s *spied) Subscribe(ctx context.Context, list ...rooms.Room) (Cursor, error) {
	if s.err != nil {
		return Cursor{}, s.err
	}
	return s.Partition.Subscribe(ctx, list...)
}

func (s *spied) Unsubscribe(list ...rooms.Room) {
	s.unsubscribed = append(s.unsubscribed, list...)
	s.Partition.Unsubscribe(list...)
}

func (s *spied) Head(ctx context.Context, seen ...Position) (Cursor, error) {
	s.mu.Lock()
	s.looked = append(s.looked, seen...)
	s.mu.Unlock()
	return s.Partition.Head(ctx, seen...)
}

func (s *spied) Condemn(_ context.Context, seen Position) error {
	s.condemned = append(s.condemned, seen)
	return nil
}

func (s *spied) Missed(ctx context.Context, after []Place, upTo Cursor, payload int) ([][]*Event, error) {
	s.payloads = append(s.payloads, payload)
	return s.Partition.Missed(ctx, after, upTo, payload)
}

// spy composes the partitions of a node of a memory, each spied. It returns a room of each.
func spy(t *testing.T, m *Memory) (*Partitions, []*spied, []rooms.Room) {
	t.Helper()
	n := mustJoin(t, m, "a").(*memoryNode)
	c := n.of
	c.Partitions = nil
	spies, homes := make([]*spied, len(n.parts)), make([]rooms.Room, len(n.parts))
	for i, p := range n.parts {
		spies[i] = &spied{Partition: p}
		c.Partitions = append(c.Partitions, spies[i])
	}
	for i := range 100 {
		homes[n.home(room(fmt.Sprint(i)))] = room(fmt.Sprint(i))
	}
	ps, err := Compose(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return ps, spies, homes
}

// The copies of an event are published in ascending order, and each names those before it.
func TestCopiesNameEarlierOnes(t *testing.T) {
	ps, spies, homes := spy(t, NewMemory(MemoryOptions{Partitions: 3}))
	if _, err := ps.Subscribe(t.Context(), homes...); err != nil {
		t.Fatal(err)
	}
	list := []rooms.Room{homes[2], homes[0], homes[1], homes[2]}
	r, err := ps.Publish(t.Context(), stored("x", list...))
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range spies {
		if len(s.published) != 1 {
			t.Fatalf("partition %d: %d copies, want 1", i, len(s.published))
		}
		e := s.published[0]
		if !slices.Equal(e.Target.To, homes[i:i+1]) || e.From != "a" || len(e.Earlier) != i {
			t.Errorf("partition %d: %+v", i, e)
		}
		for k, c := range e.Earlier {
			if c.At != r.Copies[k].At || !slices.Equal(c.To, homes[k:k+1]) {
				t.Errorf("partition %d: the earlier copy %d is %+v, in the receipt %+v", i, k, c, r.Copies[k])
			}
		}
		if !r.Cursor.Covers(r.Copies[i].At) {
			t.Errorf("the cursor does not cover the copy in partition %d", i)
		}
	}
	if r.Cursor.At != r.Copies[2].At || r.Receivers != 3 {
		t.Errorf("the cursor is at %v, want the last copy; %d receivers of the copies, want 3", r.Cursor.At, r.Receivers)
	}
	for n, want := range []int{0, 0, 2, 3} {
		if r, err := ps.Publish(t.Context(), stored("x", homes[:n]...)); err != nil || len(r.Copies) != want {
			t.Errorf("an event to %d partitions: the receipt has %d copies, %v, want %d", n, len(r.Copies), err, want)
		}
	}
}

// If a copy fails that is not the first, the event is neither published nor unpublished.
func TestPublishFailsInTheMiddle(t *testing.T) {
	for fails, want := range []error{ErrNotPublished, ErrUnavailable, ErrUnavailable} {
		ps, spies, homes := spy(t, NewMemory(MemoryOptions{Partitions: 3}))
		spies[fails].err = fmt.Errorf("%w: a test", ErrNotPublished)
		_, err := ps.Publish(t.Context(), stored("x", homes...))
		if !errors.Is(err, want) || errors.Is(err, ErrNotPublished) != (want == ErrNotPublished) {
			t.Errorf("it fails in partition %d: %v, want %v", fails, err, want)
		}
		for i, s := range spies {
			if tried := len(s.published) > 0; tried != (i <= fails) {
				t.Errorf("it fails in partition %d, and is tried in partition %d: %v, want %v", fails, i, tried, i <= fails)
			}
		}
	}
}

func TestSubscribeFailsInOnePartition(t *testing.T) {
	ps, spies, homes := spy(t, NewMemory(MemoryOptions{Partitions: 3}))
	failure := errors.New("a test")
	spies[1].err = failure
	if _, err := ps.Subscribe(t.Context(), homes[0], homes[1], homes[0]); !errors.Is(err, failure) {
		t.Errorf("Subscribe: %v, want %v", err, failure)
	}
	for i, want := range [][]rooms.Room{{homes[0], homes[0]}, nil, nil} {
		if got := spies[i].unsubscribed; !slices.Equal(got, want) {
			t.Errorf("partition %d: unsubscribed %v, want %v", i, got, want)
		}
	}
}

// A partition that loses its history is a loss for all.
func TestLossInOnePartition(t *testing.T) {
	m := NewMemory(MemoryOptions{Partitions: 3})
	ps, _, homes := spy(t, m)
	before := mustHead(t, ps)
	m.mu.Lock()
	m.logs[1].begin()
	lost := Item{Lost: &LostError{Reason: "a test"}, Epoch: m.logs[1].epoch, At: m.logs[1].newest}
	m.nodes["a"].feed.Put(lost, 0)
	m.mu.Unlock()

	var e *LostError
	if _, err := ps.Next(t.Context()); !errors.As(err, &e) {
		t.Fatalf("Next: %v, want a LostError", err)
	}
	head := mustHead(t, ps)
	if !e.Cursor.SameHistory(head) || e.Cursor.SameHistory(before) {
		t.Errorf("the feed continues at %v, before was %v, now is %v", e.Cursor, before, head)
	}
	for i := range uint16(3) {
		if got := e.Cursor.In(i); got != head.In(i) {
			t.Errorf("the feed continues at %v in partition %d, want %v", got, i, head.In(i))
		}
	}
	if _, err := ps.Head(t.Context(), before); !errors.Is(err, ErrHistoryLost) {
		t.Errorf("Head: %v, want ErrHistoryLost", err)
	}
	for _, err := range ps.Replay(t.Context(), nil, before, 0) {
		if !errors.Is(err, ErrHistoryLost) {
			t.Errorf("Replay: %v, want ErrHistoryLost", err)
		}
	}
	for _, err := range ps.Replay(t.Context(), map[rooms.Room]Cursor{homes[0]: before}, head, 0) {
		if !errors.Is(err, ErrHistoryLost) {
			t.Errorf("Replay: %v, want ErrHistoryLost", err)
		}
	}
	if _, err := ps.Fetch(t.Context(), before, nil); !errors.Is(err, ErrHistoryLost) {
		t.Errorf("Fetch: %v, want ErrHistoryLost", err)
	}
	if _, _, err := ps.History(t.Context(), homes[0], Page{Before: before, Events: 1}); !errors.Is(err, ErrHistoryLost) {
		t.Errorf("History: %v, want ErrHistoryLost", err)
	}
}

func mustHead(t *testing.T, ps *Partitions) Cursor {
	t.Helper()
	c, err := ps.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint16(c.Partitions()) {
		if c.In(i).Compare(c.At) > 0 {
			t.Errorf("the head is at %v, want the newest position, %v", c.At, c.In(i))
		}
	}
	return c
}

// A cursor is looked for where it has seen something, and only in its own history.
func TestSeenPositionsAreLookedFor(t *testing.T) {
	ps, spies, _ := spy(t, NewMemory(MemoryOptions{Partitions: 3}))
	head := mustHead(t, ps)
	partly := NewCursor(head.Epoch, 2, []Position{head.In(0), {Partition: 1}, head.In(2)})
	past := partly
	past.Epoch = "past"
	if _, err := ps.Head(t.Context(), partly, Cursor{}); err != nil {
		t.Errorf("Head: %v", err)
	}
	if err := errors.Join(ps.Condemn(t.Context(), past), ps.Condemn(t.Context(), partly)); err != nil {
		t.Errorf("Condemn: %v", err)
	}
	for i, s := range spies {
		var want []Position
		if i != 1 {
			want = []Position{head.In(uint16(i))}
		}
		if !slices.Equal(s.looked, want) || !slices.Equal(s.condemned, want) {
			t.Errorf("partition %d: looked for %v, condemned %v, want %v", i, s.looked, s.condemned, want)
		}
	}
}

// What a replay may hold is divided by the rooms, and its cursors begin where its rooms do.
func TestReplayIsDivided(t *testing.T) {
	ps, spies, homes := spy(t, NewMemory(MemoryOptions{Partitions: 3}))
	ctx := t.Context()
	begin := mustHead(t, ps)
	first, err := ps.Publish(ctx, stored("first", homes[0]))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []rooms.Room{homes[1], homes[0], homes[1]} {
		if _, err := ps.Publish(ctx, stored("later", r)); err != nil {
			t.Fatal(err)
		}
	}
	end := mustHead(t, ps)
	n := 0
	for e, err := range ps.Replay(ctx, map[rooms.Room]Cursor{homes[0]: first.Cursor, homes[1]: begin}, end, 100) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Cursor.At != e.Position || !e.Cursor.Covers(first.Cursor.At) || e.Cursor.In(2) != end.In(2) || n == 0 && e.Cursor.Includes(end) {
			t.Errorf("event %d of the replay has the cursor %v", n, e.Cursor)
		}
		n++
	}
	if n != 3 {
		t.Errorf("%d events were replayed, want 3", n)
	}
	for i, want := range []int{50, 50, 1} {
		if !slices.Equal(spies[i].payloads, []int{want}) {
			t.Errorf("partition %d may hold %v bytes, want %d", i, spies[i].payloads, want)
		}
	}
}

// Of a cursor the position in the room's partition counts.
func TestHistoryBeforeAnotherPartition(t *testing.T) {
	ps, _, homes := spy(t, NewMemory(MemoryOptions{Partitions: 3}))
	mustPublish(t, ps, stored("1", homes[0]))
	second := mustPublish(t, ps, stored("2", homes[0]))
	elsewhere := second
	for !elsewhere.Covers(Position{Ms: second.At.Ms + 1, Partition: 1}) {
		elsewhere = mustPublish(t, ps, stored("x", homes[1]))
	}
	before := NewCursor(elsewhere.Epoch, 1, []Position{second.At, elsewhere.At, {Partition: 2}})
	events, more, err := ps.History(t.Context(), homes[0], Page{Before: before, Events: 5})
	if err != nil || more || len(events) != 1 || string(events[0].Data) != "1" {
		t.Errorf("History: %d events, %v, %v, want the first one", len(events), more, err)
	}
}

// An event's cursor covers what other nodes have published before it in partitions in which the
// node is not subscribed, although the node has asked for no position there.
func TestMemoryFeedPassesOtherPartitions(t *testing.T) {
	m := NewMemory(MemoryOptions{Partitions: 3})
	ps, _, homes := spy(t, m)
	b := mustJoin(t, m, "b")
	mustSubscribe(t, b, homes[0])
	elsewhere := mustPublish(t, ps, stored("x", homes[1]))
	mustPublish(t, ps, stored("y", homes[0]))
	if e, err := b.Next(t.Context()); err != nil || !e.Cursor.Covers(elsewhere.At) {
		t.Errorf("the cursor %v does not cover %v, %v", e.Cursor, elsewhere.At, err)
	}
}

// What is read from a backlog can be published again: it does not claim to share its payload.
func TestReadEventsShareNothing(t *testing.T) {
	a := mustJoin(t, NewMemory(MemoryOptions{}), "a")
	begin := mustSubscribe(t, a)
	end := mustPublish(t, a, stored("x", room("r"), room("s")))
	var read []Event
	for e, err := range a.Replay(t.Context(), map[rooms.Room]Cursor{room("r"): begin}, end, 0) {
		if err != nil {
			t.Fatal(err)
		}
		read = append(read, e)
	}
	fetched, err1 := a.Fetch(t.Context(), end, []Place{{room("r"), end.At}})
	kept, _, err2 := a.History(t.Context(), room("r"), Page{Events: 1})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	for _, e := range slices.Concat(read, fetched, kept) {
		if e.copies != 0 {
			t.Errorf("%q shares its payload with %d backlogs, want 0", e.Data, e.copies)
		}
	}
}

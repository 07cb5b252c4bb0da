// Package feed decides which of one partition's events a node delivers, and how it avoids missing
// any. It does no I/O: each method of [Feed] takes an input and returns the actions to take.
package feed

import (
	"errors"
	"math"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A Config describes the partition of a Feed. Its functions have no effect on the feed.
type Config struct {
	Partition uint16
	Stored    bool          // rooms have backlogs
	Life      time.Duration // of a silent backlog

	// Decode decodes the event in a copy for a room. The lists of a listed event come separately;
	// DecodeLists adds them.
	Decode      func(payload string, to []rooms.Room) (e *adapter.Event, listed bool, err error)
	DecodeLists func(lists string, e *adapter.Event) error
	// Size returns the memory of an event, in bytes.
	Size func(e *adapter.Event) int
}

// A Feed is the state of one partition's feed. It is not safe for concurrent use.
type Feed struct {
	config Config

	// The history as this node knows it. tail is the position up to which the feed is complete: all
	// events in subscribed rooms up to there have been delivered. known is the newest entry of the
	// clock in any reply.
	epoch  string
	left   []string // previous histories, newest last
	tail   adapter.Position
	former formerPrimary
	known  Entry
	// The upper estimate of the clock; see ahead.go.
	knownAt time.Time // when known was noted
	horizon uint64    // in milliseconds

	rooms map[string]room // subscribed, by name within the epoch
	gen   *generation     // nil between two
	begun bool            // the feed has been live: members may have missed something since
	space Space
	out   Output
}

// New returns the feed of a node that does not know the history yet.
func New(c Config) *Feed { return &Feed{config: c, rooms: make(map[string]room)} }

// A room is one that the node is subscribed to, or will be.
type room struct {
	to   []rooms.Room     // the room itself, never changed
	from adapter.Position // missed events after this position count
}

// A generation is the lifetime of one connection of the subscriber, up to the end of its history.
type generation struct {
	server  string // which feeds it
	flow    flow
	coming  coming
	newest  adapter.Position // up to which messages have moved the tail; zero if a catch-up has
	fenced  bool             // a PING is wanted, or has been sent
	ahead   ahead
	memory  []Entry          // entries that the clock must contain
	end     adapter.Position // of the catch-up
	held    []*adapter.Event // while catching up
	bytes   int              // of held
	unknown []rooms.Room     // rooms with undecodable events, while catching up
}

// A flow says how arriving events are treated.
type flow uint8

const (
	holding  flow = iota // they are kept until the catch-up has ended
	passing              // they are delivered
	dropping             // until there is space for them, followed by a catch-up
)

// heldBytes bounds the events that are held during a catch-up.
const heldBytes = 64 << 20

// Space is the free space in the queue of delivered items. The last item may exceed the bytes.
type Space struct{ Items, Bytes int }

// An Item is what the feed delivers.
type Item struct {
	adapter.Item
	Size int // memory in bytes
}

// An Output lists the actions to take. It is valid until the next input.
type Output struct {
	Items   []Item // to deliver, in this order
	Notes   []Note // to count and log
	Probed  bool   // a probe has returned
	Live    bool   // a catch-up has ended
	Ping    bool   // send a PING, then Pong
	Look    bool   // read the clock, then Looked
	CatchUp bool   // catch up again once the queue has space: CatchUp, Plan, Release
	Stop    error  // end the generation with this cause
}

// A Note is something to count and log.
type Note struct {
	What What
	Name string           // of a channel, or of the former history
	At   adapter.Position // of a message
	Than adapter.Position // the position that it is compared with
	Err  error
	N    int
}

// What is the subject of a Note.
type What uint8

const (
	Undecodable What = iota // Err: a message in Name cannot be decoded
	Overflow                // more has arrived than there is space for
	Ahead                   // the message for Name at At is beyond the clock, Than
	WasAhead                // a message that was accepted, at At, was beyond the clock, Than
	NewHistory              // the history Name is lost
	Unrepaired              // Err: a gap in Name, or in all rooms, cannot be repaired
	Repaired                // N missed events are delivered
)

// ErrNewHistory ends a generation whose history is no longer the current one.
var ErrNewHistory = errors.New("adapter/redis: new history has begun")

// input begins an input, and reports whether there is a generation.
func (f *Feed) input(s Space) bool {
	items, notes := f.out.Items, f.out.Notes
	if clear(items); cap(items) > 1024 {
		items = nil
	}
	f.out, f.space = Output{Items: items[:0], Notes: notes[:0]}, s
	return f.gen != nil
}

// Begin begins a generation that is subscribed to the rooms of a history at a server.
func (f *Feed) Begin(epoch, server string) *Output {
	f.input(Space{})
	if f.gen = (&generation{server: server}); epoch != f.epoch {
		f.stop()
	}
	return &f.out
}

// End ends the generation.
func (f *Feed) End() { f.gen = nil }

func (f *Feed) stop() { f.gen, f.out.Stop = nil, ErrNewHistory }

// never is after all positions.
var never = adapter.Position{Ms: math.MaxUint64}

// Subscribe adds a room. Its missed events count only after [Feed.From] has set the
// position from which they count.
func (f *Feed) Subscribe(name string, r rooms.Room) { f.rooms[name] = room{[]rooms.Room{r}, never} }

// From sets the position after which missed events in a room count, if it has none.
func (f *Feed) From(name string, at adapter.Position) {
	if r, ok := f.rooms[name]; ok && r.from == never {
		f.rooms[name] = room{r.to, at}
	}
}

// Unsubscribe removes a room.
func (f *Feed) Unsubscribe(name string) { delete(f.rooms, name) }

// Epoch returns the current history; "" if none is known yet.
func (f *Feed) Epoch() string { return f.epoch }

// Tail returns the position up to which the feed is complete.
func (f *Feed) Tail() adapter.Position { return f.tail }

// Known returns the newest known entry of the clock.
func (f *Feed) Known() Entry { return f.known }

// Passing reports whether events are delivered as they arrive.
func (f *Feed) Passing() bool { return f.gen != nil && f.gen.flow == passing }

// lose reports a loss in some rooms, or in all if there are none, before a position.
func (f *Feed) lose(reason string, list []rooms.Room, before adapter.Position) {
	f.put(adapter.Item{Lost: &adapter.LostError{Reason: reason, Rooms: list}, Epoch: f.epoch, At: before}, 0)
}

func (f *Feed) put(it adapter.Item, size int) {
	f.out.Items = append(f.out.Items, Item{it, size})
	f.space.Items--
	f.space.Bytes -= size
}

func (f *Feed) full() bool { return f.space.Items <= 0 || f.space.Bytes <= 0 }

func (f *Feed) note(n Note) { f.out.Notes = append(f.out.Notes, n) }

func later(a, b adapter.Position) adapter.Position {
	if a.Compare(b) < 0 {
		return b
	}
	return a
}

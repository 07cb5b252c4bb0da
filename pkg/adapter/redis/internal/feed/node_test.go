package feed

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

var roomNames = []string{"a", "b", "c"}

// A node is the shell around a feed, and its members.
type node struct {
	t     *rapid.T
	world *world
	feed  *Feed
	log   []string

	limit, queued int // of the queue
	looking       bool
	behind        bool // a catch-up is wanted
	plan          *Plan
	phase         int // of the catch-up
	seen          *Look
	memory        []Entry
	read          *Reading
	rooms         map[string]*members

	last    adapter.Position // that was delivered
	rejoin  adapter.Position // where members that have lost events join again; at the loss if that is later
	forged  map[adapter.Position]bool
	fed     map[adapter.Position]bool // by a former primary, and lost
	suspect bool                      // the feed may be that of a former primary, or wrong because of a forged message
	excused bool                      // there is a reason for losses in all rooms
	excuses map[string]bool           // and in one
}

// members are those of a room.
type members struct {
	confirmed bool // once
	joined    bool
	epoch     string
	from      adapter.Position // their join position
	got       map[adapter.Position]bool
}

func newNode(t *rapid.T, limit int) *node {
	n := &node{t: t, world: newWorld(), feed: newFeed(), limit: limit, rooms: make(map[string]*members),
		forged: make(map[adapter.Position]bool), fed: make(map[adapter.Position]bool), excuses: make(map[string]bool)}
	n.search(0)
	n.connected()
	return n
}

// connected makes the feed live, as it is when a node gets its first members.
func (n *node) connected() {
	n.queued = 0
	n.begin(0)
	for range 20 {
		n.confirm(0)
	}
	for range 10 {
		n.catchUp(0)
	}
}

func (n *node) say(format string, args ...any) { n.log = append(n.log, fmt.Sprintf(format, args...)) }

func (n *node) fail(format string, args ...any) {
	n.t.Fatalf("%s\n\t%s", fmt.Sprintf(format, args...), strings.Join(n.log, "\n\t"))
}

func (n *node) space() Space { return Space{n.limit - n.queued, 1 << 30} }

func (n *node) pass(d time.Duration) {
	n.world.now += uint64(d.Milliseconds())
	n.world.local = n.world.local.Add(d)
}

// event makes an event for one or more rooms.
func event(x int) *record {
	r := &record{stored: x%4 > 0, listed: x/4%8 == 0}
	for i, name := range roomNames {
		if x>>(5+i)&1 == 1 {
			r.rooms = append(r.rooms, name)
		}
	}
	if r.rooms == nil {
		r.rooms = []string{"x"} // which has no members
	}
	if x/256%2 == 0 {
		slices.Reverse(r.rooms)
	}
	return r
}

func (n *node) publish(x int) {
	list := []*record{event(x)}
	if x/512%3 == 0 {
		list = append(list, event(x/1536))
	}
	n.published(list, false)
	if x%2 == 0 && !n.world.former() { // by this node
		n.feed.Observe(n.world.primary.epoch, n.world.primary.newest(), n.world.local)
	}
}

func (n *node) published(list []*record, hole bool) {
	n.world.publish(list, hole)
	for _, r := range list {
		n.say("  %s", r)
	}
}

func (n *node) publishBad(x int) {
	r := event(x)
	r.bad = true
	for _, name := range r.rooms {
		n.excuses[name] = true
	}
	n.published([]*record{r}, false)
}

// publishInHole publishes an event that the subscribers of a former primary do not get.
func (n *node) publishInHole(x int) {
	if n.world.former() {
		n.excused, n.suspect = true, true
		n.published([]*record{event(x)}, true)
	}
}

// garble sends a message without a position.
func (n *node) garble(x int) {
	name := roomNames[x%len(roomNames)]
	if c := n.world.conn; c != nil && c.subscribed[name] {
		n.excuses[name] = true
		c.flight = append(c.flight, arrival{Message{Name: name}, true})
	}
}

// forge sends a message far ahead of the clock.
func (n *node) forge(x int) {
	at := adapter.Position{Ms: n.world.now + 1e9}
	n.forged[at] = true
	n.world.send(forgery(x, at))
}

// forgeSlightly sends a forged message that may be accepted.
func (n *node) forgeSlightly(x int) {
	n.excused = true
	n.world.send(forgery(x, adapter.Position{Ms: n.world.now + uint64(x%1200), Seq: forgedSeq}))
}

// forgedSeq is the number of positions that are slightly ahead of the clock.
const forgedSeq = 1 << 40

func forgery(x int, at adapter.Position) Message {
	names := append([]string{Probes, Lists}, roomNames...)
	return Message{Name: names[x%len(names)], At: at, More: x%3 == 0, Payload: []string{"event", "!"}[x/5%2]}
}

func (n *node) probe(int) {
	if !n.world.former() {
		e := n.world.tick()
		n.world.send(Message{Name: Probes, At: e.Position(0, 0)})
		n.feed.Observe(n.world.primary.epoch, e, n.world.local) // the reply
	}
}

func (n *node) failover(x int) {
	lost := max(x%6-2, 0)
	n.excused = n.excused || lost > 0
	n.suspect = true
	before := n.world.primary.log
	n.world.failover(lost, uint64(x/6%3*100))
	if x/18%3 == 0 {
		n.cut()
		return
	}
	for _, r := range before[len(n.world.primary.log):] {
		n.fed[r.at] = true
	}
}

func (n *node) subscribe(x int) {
	name := roomNames[x%len(roomNames)]
	if n.rooms[name] != nil {
		return
	}
	n.feed.Subscribe(name, room1(name))
	n.rooms[name] = &members{}
	n.world.heard[name] = true
	if c := n.world.conn; c != nil {
		c.late = append(c.late, name)
	}
}

func (n *node) unsubscribe(x int) {
	name := roomNames[x%len(roomNames)]
	m := n.rooms[name]
	if m == nil {
		return
	}
	n.feed.Unsubscribe(name)
	delete(n.rooms, name)
	delete(n.world.heard, name)
	if c := n.world.conn; c != nil {
		delete(c.subscribed, name)
		other := func(s string) bool { return s == name }
		c.pending, c.late = slices.DeleteFunc(c.pending, other), slices.DeleteFunc(c.late, other)
	}
}

// join reads the join position of a room once it is confirmed.
func (n *node) join(x int) {
	name := roomNames[x%len(roomNames)]
	m := n.rooms[name]
	if m == nil || m.joined || !m.confirmed || !n.reads() {
		return
	}
	m.joined, m.epoch, m.from, m.got = true, n.feed.Epoch(), n.world.primary.newest().End(0), make(map[adapter.Position]bool)
	n.feed.From(name, m.from)
}

func (n *node) begin(int) {
	if n.world.conn == nil {
		n.world.connect(n.feed.Epoch())
		n.behind, n.phase = true, 0
		n.do(n.feed.Begin(n.feed.Epoch(), n.world.conn.server))
	}
}

func (n *node) cut() {
	n.world.conn = nil
	n.feed.End()
	n.looking, n.behind, n.phase = false, false, 0
}

// confirm subscribes to one more channel.
func (n *node) confirm(int) {
	c := n.world.conn
	if c == nil {
		return
	}
	from := &c.pending
	if len(*from) == 0 {
		from = &c.late
	}
	if len(*from) > 0 {
		name := (*from)[0]
		*from = (*from)[1:]
		c.subscribed[name] = true
		if m := n.rooms[name]; m != nil {
			m.confirmed = true
		}
	}
}

// reads reports whether the node may read from the primary: if its connection is to a former one,
// it ends. A new history is adopted.
func (n *node) reads() bool {
	if n.world.former() {
		n.cut()
		return false
	}
	if n.world.primary.epoch != n.feed.Epoch() {
		n.search(0)
		return false
	}
	n.feed.Observe(n.feed.Epoch(), n.world.primary.newest(), n.world.local)
	return true
}

func (n *node) search(int) {
	if n.world.former() {
		n.cut()
	}
	p := n.world.primary
	adopted, out := n.feed.Adopt(n.feed.Epoch(), p.epoch, p.newest(), n.world.local)
	if n.do(out); !adopted {
		n.fail("the history is not adopted")
	}
}

func (n *node) look(int) {
	if n.looking && n.reads() {
		n.looking = false
		n.do(n.feed.Looked(n.world.primary.epoch, n.world.primary.newest(), n.world.local, n.space()))
	}
}

// catchUp takes the next step of a catch-up.
func (n *node) catchUp(int) {
	w := n.world
	if w.conn == nil || !n.behind || len(w.conn.pending) > 0 {
		return
	}
	switch n.phase {
	case 0:
		if n.queued >= n.limit {
			return
		}
		n.memory = n.feed.CatchUp()
	case 1:
		if !n.reads() {
			return
		}
		n.seen = w.look(n.memory)
	case 2:
		plan, err := n.feed.Plan(n.seen)
		if err != nil {
			n.fail("the plan: %v", err)
		}
		if plan.Lost != "" {
			n.say("  %s", plan.Lost)
			if !n.excused {
				n.fail("nothing is lost")
			}
			if n.world.former() { // as another one may be
				n.cut()
				return
			}
			w.flush(0)
			n.search(0)
			return
		}
		n.plan = &plan
	case 3:
		if !n.reads() {
			return
		}
		read := w.read(*n.plan)
		for name := range read.Broken {
			n.excuses[name] = true
		}
		n.read = &read
	case 4:
		n.release()
		return
	}
	n.phase++
}

func (n *node) release() {
	w := n.world
	aged := n.read.Now.Sub(n.feed.Tail().Time()) >= life
	excused := n.excused
	n.excused = excused || aged
	n.behind, n.phase = false, 0
	out := n.feed.Release(*n.read)
	n.rejoin = w.primary.newest().End(0)
	n.do(out)
	n.excused, n.rejoin = excused, adapter.Position{}
	if out.Live && !w.former() {
		n.suspect = n.feed.Tail().Seq == forgedSeq
		n.checkLost()
	}
}

// deliver lets messages arrive.
func (n *node) deliver(x int) {
	for range 1 + x%3 {
		c := n.world.conn
		if c == nil || len(c.flight) == 0 {
			return
		}
		m := c.flight[0]
		c.flight = c.flight[1:]
		n.say("  %s %s %q", m.Name, showPosition(m.At), m.Payload)
		switch {
		case m.Name == "":
			n.do(n.feed.Pong(n.space()))
		case m.garbled:
			n.do(n.feed.Malformed(m.Name, adapter.ErrUndecodable))
		default:
			n.do(n.feed.Arrived(m.Message, n.world.local, n.space()))
		}
	}
}

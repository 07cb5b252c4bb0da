package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// A witness compares the events that a client gets from the publishers of a
// ledger with the expected ones. It is notified of everything that happens to
// the client, and its log explains errors.
type witness struct {
	name   string
	rooms  []string
	ledger *ledger

	mu       sync.Mutex
	joined   bool
	asked    time.Time                      // since when the client has tried to connect
	earliest time.Time                      // that the session can have been born, and
	born     time.Time                      // when that was known
	before   map[string]map[string]sequence // by room: what had been sent when the join was
	after    map[string]map[string]sequence // and when it was acknowledged; nil until then
	next     map[[2]string]int              // by room and publisher: the number that comes next
	first    map[[2]string]int              // and the first one
	late     map[string]bool                // events that came after the first one, though they precede it
	last     time.Time                      // of the last event
	expires  time.Time                      // the token; zero for none
	lapsed   bool                           // the last connection ended with the token
	heard    int
	troubles int // disconnects and connect errors of a stock client
	log      []string
	problems []string
	reconnects
}

// reconnects counts a client's reconnects by kind.
type reconnects struct {
	recovered, refused int
	afterKill          int // of the recovered, those on another node than the one that was killed
	afterExpiry        int // of the recovered, those whose connection had ended with their token
}

// returns is the number of the client's reconnects.
func (w *witness) returns() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.recovered + w.refused
}

const logLines = 60

func newWitness(name string, l *ledger, rooms ...string) *witness {
	return &witness{name: name, rooms: rooms, ledger: l, asked: time.Now(), next: map[[2]string]int{}, first: map[[2]string]int{}, late: map[string]bool{}}
}

// note adds a line to the log.
func (w *witness) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.write(format, args...)
}

// connects reports that the client begins to connect.
func (w *witness) connects(offset string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = time.Now()
	w.write("connects with offset %s", offset)
}

// disturbed reports a disconnect or a connect error of a stock client, which begins
// to reconnect.
func (w *witness) disturbed(what, reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.troubles++
	w.asked = time.Now()
	w.write("%s: %s", what, reason)
}

// shows reports that the client presents a token.
func (w *witness) shows(expires time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expires = expires
}

// cutOff reports that the node, or a proxy in between, has ended the
// connection.
func (w *witness) cutOff() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lapsed = !w.expires.IsZero() && !time.Now().Before(w.expires)
	w.write("is cut off, by the end of its token: %v", w.lapsed)
}

func (w *witness) write(format string, args ...any) {
	w.log = append(w.log, time.Now().Format("05.000 ")+fmt.Sprintf(format, args...))
	if len(w.log) > 2*logLines {
		w.log = slices.Delete(w.log, 0, logLines)
	}
}

func (w *witness) problem(format string, args ...any) {
	w.write("PROBLEM: "+format, args...)
	if len(w.problems) < 5 {
		w.problems = append(w.problems, fmt.Sprintf(format, args...)+"\n    "+strings.Join(w.log, "\n    "))
	}
}

// connected reports a connection. With a new session the client is not in its
// rooms; then connected returns the earliest time at which the former session
// was created, zero if there was none.
func (w *witness) connected(recovered bool, where string) (former time.Time, joined bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.write("connected to %s, recovered %v", where, recovered)
	former = w.earliest
	if !recovered {
		w.earliest, w.born, w.joined = w.asked, time.Now(), false
		w.before, w.after, w.next, w.first, w.late = nil, nil, map[[2]string]int{}, map[[2]string]int{}, map[string]bool{}
	}
	return former, w.joined
}

// joining reports that the client is about to join its rooms, or retries.
func (w *witness) joining() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.before == nil {
		w.before = w.sent()
	}
}

// hasJoined reports that the join was acknowledged.
func (w *witness) hasJoined() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.joined, w.after = true, w.sent()
	w.write("joined")
}

func (w *witness) sent() map[string]map[string]sequence {
	all := map[string]map[string]sequence{}
	for _, room := range w.rooms {
		all[room] = w.ledger.of(room)
	}
	return all
}

// hears reports an event of a publisher.
func (w *witness) hears(publisher, room string, number int, offset string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now(); now.Sub(w.last) > 100*time.Millisecond || len(w.log) > 0 && !strings.Contains(w.log[len(w.log)-1], "hears") {
		w.write("hears %s %s %d at %s", publisher, room, number, offset)
		w.last = now
	}
	w.heard++
	if !slices.Contains(w.rooms, room) {
		w.problem("STRAY: hears %s %s %d", publisher, room, number)
		return
	}
	key := [2]string{room, publisher}
	want, known := w.next[key]
	if !known {
		want, w.first[key] = number, number
		if least := w.before[room][publisher].acked; number < least {
			w.problem("LEAK: hears %s %s %d at %s, but all up to %d were acknowledged before it asked to join", publisher, room, number, offset, least-1)
		}
		if most := w.after[room][publisher].started; w.after != nil && number > most {
			w.problem("GAP: the first of %s in %s that it hears is %d at %s, but %d was sent after its join had been acknowledged", publisher, room, number, offset, most)
		}
	}
	switch {
	case number < w.first[key] && strings.HasPrefix(room, pairs) && number >= w.before[room][publisher].acked && !w.late[fmt.Sprint(key, number)]:
		// Its first copy is older than the join, the other one was completed after it, and the orders of
		// two partitions are apart.
		w.late[fmt.Sprint(key, number)] = true
		return
	case number < want:
		w.problem("REPEAT: hears %s %s %d at %s again, expected %d", publisher, room, number, offset, want)
		return
	case number > want:
		w.problem("GAP: hears %s %s %d at %s, expected %d", publisher, room, number, offset, want)
	}
	w.next[key] = number + 1
}

// hearsArgs is hears with the arguments of the event.
func (w *witness) hearsArgs(args []json.RawMessage) {
	var publisher, room, offset string
	var number int
	if len(args) < 4 {
		w.note("PROBLEM: malformed event %s", args)
		return
	}
	err := errors.Join(json.Unmarshal(args[0], &publisher), json.Unmarshal(args[1], &room),
		json.Unmarshal(args[2], &number), json.Unmarshal(args[len(args)-1], &offset))
	if err != nil {
		w.note("PROBLEM: malformed event %s", args)
		return
	}
	w.hears(publisher, room, number, offset)
}

// complete reports whether the client has got all events expected so far.
func (w *witness) complete() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.joined {
		return errors.New("it is not in its rooms")
	}
	for _, room := range w.rooms {
		for publisher, s := range w.ledger.of(room) {
			next, known := w.next[[2]string{room, publisher}]
			if !known {
				next = w.after[room][publisher].started
			}
			if next < s.acked {
				return fmt.Errorf("TAIL: of %s in %s it lacks %d to %d", publisher, room, next, s.acked-1)
			}
		}
	}
	return nil
}

// doubtful returns the events of unknown outcome that it must have got if any
// client did, and whether it did.
func (w *witness) doubtful() map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	heard := map[string]bool{}
	for _, room := range w.rooms {
		for publisher, s := range w.ledger.of(room) {
			next, known := w.next[[2]string{room, publisher}]
			if s.started > s.acked && s.started > w.after[room][publisher].started {
				heard[fmt.Sprint(room, " ", publisher, " ", s.started-1)] = known && next == s.started
			}
		}
	}
	return heard
}

// verdict returns what went wrong.
func (w *witness) verdict() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.problems) > 0 {
		return fmt.Errorf("client %s: %s", w.name, strings.Join(w.problems, "\n  "))
	}
	return nil
}

func (w *witness) dump() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.log, "\n    ")
}

// undecided returns an error if some witnesses got an event that others in its
// room did not get.
func undecided(witnesses []*witness) error {
	all := map[string]bool{}
	for _, w := range witnesses {
		for event, heard := range w.doubtful() {
			if before, known := all[event]; known && before != heard {
				return fmt.Errorf("%s: received by some, not by others, such as %s", event, w.name)
			}
			all[event] = heard
		}
	}
	return nil
}

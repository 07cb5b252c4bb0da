package feed

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// decode decodes the payloads of tests; see testdata/README.md.
func decode(payload string, to []rooms.Room) (*adapter.Event, bool, error) {
	e := &adapter.Event{Target: rooms.Target{To: to}, Stored: true}
	listed := false
	for payload != "" {
		switch payload[0] {
		case '!':
			return nil, false, adapter.ErrUndecodable
		case '~':
			e.Stored = false
		case '&':
			listed = true
		default:
			e.Data = []byte(payload)
			return e, listed, nil
		}
		payload = payload[1:]
	}
	return e, listed, nil
}

func decodeLists(lists string, e *adapter.Event) error {
	if lists == "!" {
		return adapter.ErrUndecodable
	}
	for name := range strings.SplitSeq(lists, ",") {
		e.Target.Except = append(e.Target.Except, room1(name))
	}
	return nil
}

func room1(name string) rooms.Room { return rooms.InNamed("/", name) }

// life is that of backlogs in tests.
const life = time.Hour

func newFeed() *Feed {
	return New(Config{Stored: true, Life: life, Decode: decode, DecodeLists: decodeLists, Size: size})
}

// size is the memory of an event in tests: 10 bytes, or as many as its data says.
func size(e *adapter.Event) int {
	if n, err := strconv.Atoi(string(e.Data)); err == nil {
		return n
	}
	return 10
}

// A player plays one scenario.
type player struct {
	feed  *Feed
	now   time.Time
	space Space
	read  Reading
	got   []string // outputs of the last input
}

func position(s string) adapter.Position {
	ms, seq, _ := strings.Cut(s, "-")
	if seq == "end" {
		return entryIn(ms).End(0)
	}
	p := adapter.Position{}
	p.Ms, _ = strconv.ParseUint(ms, 10, 64)
	p.Seq, _ = strconv.ParseUint(seq, 10, 64)
	return p
}

func entryIn(s string) Entry {
	ms, call, _ := strings.Cut(s, "=")
	n, err := strconv.ParseUint(ms, 10, 64)
	if err != nil {
		panic(err)
	}
	return Entry{Ms: n, Call: call}
}

func look(epoch, span string, found []string) *Look {
	oldest, newest, _ := strings.Cut(span, "..")
	l := &Look{Epoch: epoch, Oldest: entryIn(oldest), Newest: entryIn(newest), Found: make(map[string]Entry)}
	for _, s := range found {
		l.Found[entryIn(s).ID()] = entryIn(s)
	}
	return l
}

// play gives the feed an input.
func (p *player) play(line string) error {
	f := p.feed
	w := append(strings.Fields(line), "", "", "", "", "")
	p.got = nil
	switch w[0] {
	case "adopt":
		before := f.Epoch()
		if w[3] == "while" {
			before = strings.TrimPrefix(w[4], "none")
		}
		adopted, out := f.Adopt(before, w[1], entryIn(w[2]), p.now)
		if p.show(out); !adopted {
			p.say("refused")
		}
	case "observe":
		f.Observe(w[1], entryIn(w[2]), p.now)
	case "subscribe":
		f.Subscribe(w[1], room1(w[1]))
	case "from":
		f.From(w[1], position(w[2]))
	case "unsubscribe":
		f.Unsubscribe(w[1])
	case "begin":
		p.show(f.Begin(w[1], w[2]))
	case "end":
		f.End()
	case "live":
		f.Begin(w[1], w[2])
		f.CatchUp()
		if _, err := f.Plan(look(w[1], "1.."+w[3], nil)); err != nil {
			return err
		}
		f.gen.end = entryIn(w[3]).End(0) // regardless of lost entries
		f.Release(Reading{Now: f.tail.Time()})
	case "copy", "lists", "probe":
		p.show(f.Arrived(message(w, line), p.now, p.space))
	case "pong":
		p.show(f.Pong(p.space))
	case "malformed":
		p.show(f.Malformed(w[1], adapter.ErrUndecodable))
	case "space":
		p.space.Items, _ = strconv.Atoi(w[1])
		p.space.Bytes, _ = strconv.Atoi(w[2])
	case "time":
		d, err := time.ParseDuration(w[1])
		p.now = start.Add(d)
		return err
	case "looked":
		p.show(f.Looked(w[1], entryIn(w[2]), p.now, p.space))
	case "catch":
		memory := "memory"
		for _, e := range f.CatchUp() {
			memory += " " + showEntry(e)
		}
		p.say("%s", memory)
	case "plan":
		p.showPlan(f.Plan(look(w[1], w[2], strings.Fields(strings.Join(w[3:], " ")))))
	case "missed":
		e, _, _ := decode(text(line), []rooms.Room{room1(w[1])})
		e.Position = position(w[2])
		p.read.Events = append(p.read.Events, []*adapter.Event{e})
	case "broken":
		if p.read.Broken == nil {
			p.read.Broken = make(map[string]error)
		}
		p.read.Broken[w[1]] = adapter.ErrUndecodable
	case "trimmed":
		p.read.Trimmed = adapter.ErrTrimmed
	case "now":
		p.read.Now = position(w[1]).Time()
	case "release":
		p.show(f.Release(p.read))
		p.read = Reading{}
	default:
		return fmt.Errorf("unknown input")
	}
	return nil
}

func message(w []string, line string) Message {
	switch w[0] {
	case "lists":
		return Message{Name: Lists, At: position(w[1]), Payload: w[2]}
	case "probe":
		return Message{Name: Probes + "a", At: position(w[1])}
	}
	at, more := strings.CutSuffix(w[2], "+")
	return Message{Name: w[1], At: position(at), More: more, Payload: text(line)}
}

// text returns the text after the first three words of a line.
func text(line string) string { return strings.TrimSpace(strings.SplitN(line+" ", " ", 4)[3]) }

func (p *player) say(format string, args ...any) { p.got = append(p.got, fmt.Sprintf(format, args...)) }

// show records an output.
func (p *player) show(out *Output) {
	for _, it := range out.Items {
		switch {
		case it.Event != nil:
			event := fmt.Sprintf("event %s %s %s", showPosition(it.Event.Position), showRooms(it.Event.Target.To), it.Event.Data)
			if list := it.Event.Target.Except; len(list) > 0 {
				event += " except " + showRooms(list)
			}
			p.say("%s", event)
		case it.Lost != nil:
			p.say("lost %s %s: %s", showRooms(it.Lost.Rooms), showPosition(it.At), it.Lost.Reason)
		default:
			p.say("progress %s", showPosition(it.At))
		}
	}
	for _, n := range out.Notes {
		p.say("note %s", showNote(n))
	}
	for _, flag := range []struct {
		on   bool
		text string
	}{{out.Probed, "probed"}, {out.Live, "live"}, {out.Ping, "ping"}, {out.Look, "look"}, {out.CatchUp, "catch up"}} {
		if flag.on {
			p.say("%s", flag.text)
		}
	}
	if out.Stop != nil {
		p.say("stop: %v", out.Stop)
	}
}

func showNote(n Note) string {
	switch n.What {
	case Undecodable:
		return "undecodable " + n.Name
	case Overflow:
		return "overflow"
	case Ahead:
		return fmt.Sprintf("ahead %s %s beyond %s", n.Name, showPosition(n.At), showPosition(n.Than))
	case WasAhead:
		return fmt.Sprintf("was ahead %s beyond %s", showPosition(n.At), showPosition(n.Than))
	case NewHistory:
		return "new history after " + n.Name
	case Unrepaired:
		return strings.TrimSpace("unrepaired " + n.Name)
	}
	return fmt.Sprintf("repaired %d", n.N)
}

func (p *player) showPlan(plan Plan, err error) {
	switch {
	case err != nil:
		p.say("error: %v", err)
	case plan.Lost != "":
		p.say("proof: %s", plan.Lost)
	default:
		for _, name := range slices.Sorted(maps.Keys(plan.After)) {
			p.say("read %s %s", name, showPosition(plan.After[name]))
		}
		p.say("up to %s", showPosition(plan.End))
	}
}

func showPosition(p adapter.Position) string {
	switch p.Seq {
	case 0:
		return fmt.Sprint(p.Ms)
	case PerCall - 1:
		return fmt.Sprint(p.Ms, "-end")
	}
	return fmt.Sprint(p.Ms, "-", p.Seq)
}

func showEntry(e Entry) string {
	if e.Call == "" {
		return fmt.Sprint(e.Ms)
	}
	return fmt.Sprint(e.Ms, "=", e.Call)
}

func showRooms(list []rooms.Room) string {
	if len(list) == 0 {
		return "all"
	}
	names := make([]string, len(list))
	for i, r := range list {
		names[i] = r.Name
	}
	return strings.Join(names, ",")
}

// start is the node's time at the start of a test.
var start = time.Unix(0, 0)

// TestConversations plays the files in testdata.
func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for scenario := range strings.SplitSeq("\n"+string(content), "\n## ") {
			title, text, _ := strings.Cut(scenario, "\n")
			if title == "" || strings.HasPrefix(title, "#") {
				continue
			}
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txt")+"/"+title, func(t *testing.T) { playScenario(t, text) })
		}
	}
}

func playScenario(t *testing.T, text string) {
	p := &player{feed: newFeed(), now: start, space: Space{100, 1 << 30}}
	var input string
	var want []string
	check := func() {
		if input == "" {
			return
		}
		if err := p.play(input); err != nil {
			t.Fatalf("%s: %v", input, err)
		}
		if !slices.Equal(p.got, want) {
			t.Fatalf("> %s\ngot\n\t%s\nwant\n\t%s", input, strings.Join(p.got, "\n\t"), strings.Join(want, "\n\t"))
		}
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if next, ok := strings.CutPrefix(line, "> "); ok {
			check()
			input, want = next, nil
		} else if next, ok := strings.CutPrefix(line, "< "); ok {
			want = append(want, next)
		} else if line != "" && !strings.HasPrefix(line, "#") {
			t.Fatalf("neither an input nor an output: %s", line)
		}
	}
	check()
}

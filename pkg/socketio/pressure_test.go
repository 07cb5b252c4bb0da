package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// busyTimeout is the ping timeout of busy. Within it the server reads everything that the
// clients of the tests send.
const busyTimeout = 1500 * time.Millisecond

// busy starts a server whose heartbeat is fast and whose handler of "e" waits for release.
// It counts the handled events.
func busy(t *testing.T, o Options) (n *testNode, release func(), handled chan int) {
	t.Helper()
	o.Engine.PingInterval, o.Engine.PingTimeout = 50*time.Millisecond, busyTimeout
	n = start(t, o)
	begin := make(chan struct{})
	handled = make(chan int, 10_000)
	n.On("e", func(_ context.Context, e *Event) error {
		<-begin
		var i int
		err := e.Arg(0, &i)
		handled <- i
		return err
	})
	closed := false
	release = func() {
		if !closed {
			closed = true
			close(begin)
		}
	}
	t.Cleanup(release)
	return n, release, handled
}

// receive returns the next value, or fails the test if there is none in time.
func receive[T any](t *testing.T, values <-chan T) T {
	t.Helper()
	select {
	case v := <-values:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came in time")
		panic("unreachable")
	}
}

// outlast waits for longer than the ping timeout, while some pings are sent.
func (n *testNode) outlast(t *testing.T) {
	t.Helper()
	end := time.Now().Add(busyTimeout * 3 / 2)
	n.pings(t, 2)
	eventually(t, "the time has passed", func() bool { return time.Now().After(end) })
}

// pings waits until the server has sent a number of further packets.
func (n *testNode) pings(t *testing.T, count uint64) {
	t.Helper()
	before := n.Stats().Engine.PacketsOut
	eventually(t, "pings", func() bool { return n.Stats().Engine.PacketsOut >= before+count })
}

// A 60 Hz client of a handler that takes five seconds, and one that sends far more than
// its mailbox holds, are both not cut, and all their events are handled.
func TestBusyHandlerDoesNotCutItsClient(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		events int
		full   uint64
		o      Options
	}{
		{events: 300},
		{events: 3000, full: 1, o: Options{MailboxEvents: 500}},
	} {
		t.Run(fmt.Sprint(test.events), func(t *testing.T) {
			t.Parallel()
			n, release, handled := busy(t, test.o)
			w := n.client(t)
			for i := range test.events {
				w.write(fmt.Sprintf(`42["e",%d]`, i))
			}
			if test.full > 0 {
				eventually(t, "the mailbox is full", func() bool { return n.Stats().MailboxFull["events"] == test.full })
			}
			n.outlast(t)
			if got := n.Stats().MailboxFull["events"]; got != test.full {
				t.Errorf("full %d times, want %d", got, test.full)
			}
			release()
			for i := range test.events {
				if got := receive(t, handled); got != i {
					t.Fatalf("handled %d, want %d", got, i)
				}
			}
			n.pings(t, 5)
			if st := n.Stats(); st.Sockets != 1 {
				t.Errorf("disconnected: %v", st.Disconnects)
			}
		})
	}
}

// The same by polling, where events are in the body of a request.
func TestBusyHandlerDoesNotCutItsPollingClient(t *testing.T) {
	t.Parallel()
	n, release, handled := busy(t, Options{MailboxEvents: 10})
	post, _ := n.poll(t)
	var body []string
	for i := range 40 {
		body = append(body, fmt.Sprintf(`42["e",%d]`, i))
	}
	posted := make(chan struct{})
	go func() {
		defer close(posted)
		for range 3 {
			post(strings.Join(body, "\x1e"))
		}
	}()
	eventually(t, "the mailbox is full", func() bool { return n.Stats().MailboxFull["events"] == 1 })
	n.outlast(t)
	release()
	for i := range 120 {
		if got := receive(t, handled); got != i%40 {
			t.Fatalf("handled %d, want %d", got, i%40)
		}
	}
	receive(t, posted)
	if st := n.Stats(); st.Sockets != 1 {
		t.Errorf("disconnected: %v", st.Disconnects)
	}
}

// A handler gets the ack that it waits for although its client has sent more events
// before the ack than the mailbox holds.
func TestHandlerGetsAckBehindEvents(t *testing.T) {
	for name, o := range limitsOf100 {
		t.Run(name, func(t *testing.T) { testHandlerGetsAckBehindEvents(t, o) })
	}
}

// limitsOf100 are options with which about a hundred small events fit into a mailbox.
var limitsOf100 = map[string]Options{
	limitEvents: {MailboxEvents: 100, AckTimeout: time.Minute},
	limitBudget: {ReceiveBudget: 60 << 10, AckTimeout: time.Minute},
}

func testHandlerGetsAckBehindEvents(t *testing.T, o Options) {
	const limit = 100
	n, release, handled := busy(t, o)
	release()
	answered := make(chan error, 1)
	n.On("ask", func(ctx context.Context, e *Event) error {
		_, err := e.Socket().EmitWithAck(ctx, "q")
		answered <- err
		return nil
	})
	w := n.client(t)
	w.write(`42["ask"]`)
	id := w.query()
	for i := range limit * 3 / 2 {
		w.write(fmt.Sprintf(`42["e",%d]`, i))
	}
	w.write("43" + id + "[]")
	select {
	case err := <-answered:
		must(t, err)
	case <-time.After(patience):
		t.Fatal("the ack is not read")
	}
	for i := range limit * 3 / 2 {
		if got := receive(t, handled); got != i {
			t.Fatalf("handled %d, want %d", got, i)
		}
	}
}

// An ack is also read if it is requested when the mailbox is already full, and if the
// mailbox is that of another namespace.
func TestAckIsReadWhileTheMailboxIsFull(t *testing.T) {
	for name, o := range limitsOf100 {
		t.Run(name, func(t *testing.T) { testAckIsReadWhileTheMailboxIsFull(t, name, o) })
	}
}

func testAckIsReadWhileTheMailboxIsFull(t *testing.T, name string, o Options) {
	const limit = 100
	n, release, _ := busy(t, o)
	defer release()
	n.Of("/other")
	w := n.client(t)
	w.connect("/other", "")
	for i := range limit * 3 / 2 {
		w.write(fmt.Sprintf(`42["e",%d]`, i))
	}
	eventually(t, "the mailbox is full", func() bool { return n.Stats().MailboxFull[name] > 0 })
	answered := make(chan error, 1)
	go func() {
		_, err := n.Of("/other").Socket(w.sid).EmitWithAck(t.Context(), "q")
		answered <- err
	}()
	w.write("43/other," + w.query() + "[]")
	select {
	case err := <-answered:
		must(t, err)
	case <-time.After(patience):
		t.Fatal("the ack is not read")
	}
}

// query returns the id of the next message, an event "q" that requests an ack.
func (w *wire) query() string {
	w.t.Helper()
	m := w.next()
	id, ok := strings.CutSuffix(strings.TrimPrefix(m, "42"+w.prefix()), `["q"]`)
	if !ok {
		w.t.Fatalf("got %q, want a question", m)
	}
	return id
}

// A client whose handlers make no progress is cut in the end, and the log names the limit.
func TestPauseIsBounded(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	o := Options{MailboxEvents: 5, Logger: zap.New(core)}
	o.Engine.PauseTimeout = 100 * time.Millisecond
	n, _, _ := busy(t, o)
	w := n.client(t)
	w.write(`42["e",0]`)
	mail := &n.Socket(w.sid).mail
	eventually(t, "a handler runs", func() bool {
		mail.mu.Lock()
		defer mail.mu.Unlock()
		return n.Stats().EventsIn == 1 && mail.running && mail.events == 0
	})
	for range 20 {
		w.write(`42["e",0]`)
	}
	<-w.closed
	eventually(t, "it is counted", func() bool { return n.Stats().MailboxFull["pause"] == 1 })
	if got := n.Stats().MailboxFull["events"]; got != 1 {
		t.Errorf("full %d times, want 1", got)
	}
	lines := logs.FilterMessageSnippet("mailbox full").All()
	if len(lines) != 1 || lines[0].ContextMap()["limit"] != "events" || lines[0].ContextMap()["mailbox_events"] != int64(5) {
		t.Errorf("logged: %v", lines)
	}
}

// A client that gets no ping for the ping interval and timeout disconnects. So pings are
// sent at their interval during a pause, too, because a connection may delay them by the
// ping timeout.
func TestPingsGoOnAtTheirIntervalDuringAPause(t *testing.T) {
	n := start(t, Options{MailboxEvents: 4, Engine: engineio.Options{PingInterval: 20 * time.Millisecond, PingTimeout: time.Hour}})
	proceed := make(chan struct{})
	defer close(proceed)
	n.On("e", func(context.Context, *Event) error { <-proceed; return nil })
	w := n.client(t)
	for range 20 {
		w.write(`42["e"]`)
	}
	eventually(t, "the mailbox is full", func() bool { return n.Stats().MailboxFull["events"] > 0 })
	before := n.Stats().Engine.PacketsOut
	eventually(t, "pings go on", func() bool { return n.Stats().Engine.PacketsOut-before > 5 })
}

// The client of a connection that is not read claims the sessions of its namespaces one
// after another. Events for the claimed ones remain in the old connection. They do not
// violate the protocol, which would disconnect the others.
func TestMovingFromAConnectionThatIsNotRead(t *testing.T) {
	n := start(t, Options{MailboxEvents: 4})
	proceed := make(chan struct{})
	told := make(chan string, 100)
	for _, ns := range []string{"/", "/b"} {
		n.Of(ns).OnConnect(func(s *Socket) {
			s.OnError(func(err error) { told <- fmt.Sprint(ns, ": ", err) })
			s.OnDisconnect(func(r Reason) { told <- fmt.Sprint(ns, ": disconnected: ", r) })
		})
		n.Of(ns).On("e", func(context.Context, *Event) error { <-proceed; return nil })
	}
	passed := make(chan struct{}, 1)
	n.Of("/b").On("passed", func(context.Context, *Event) error { passed <- struct{}{}; return nil })
	old := n.client(t)
	main := old.pid
	old.connect("/b", "")
	for range 20 {
		old.write(`42["e"]`)
	}
	eventually(t, "the mailbox is full", func() bool { return n.Stats().MailboxFull["events"] > 0 })
	back := n.dial(t)
	back.connect("/", fmt.Sprintf(`{"pid":%q}`, main))
	old.write(`42/b,["passed"]`)
	eventually(t, "the old connection is read", func() bool { return len(passed)+len(told) > 0 })
	back.connect("/b", fmt.Sprintf(`{"pid":%q}`, old.pid))
	close(proceed)
	<-old.closed
	for len(told) > 0 {
		t.Error(<-told)
	}
}

// Queries to the client, which may cause further reads of its connection, do not count as
// progress.
func TestQueriesDoNotProlongAPause(t *testing.T) {
	t.Parallel()
	o := Options{MailboxEvents: 5}
	o.Engine.PauseTimeout = 200 * time.Millisecond
	n, _, _ := busy(t, o)
	w := n.client(t)
	for range 30 {
		w.write(`42["e",0]`)
	}
	asked := time.NewTicker(50 * time.Millisecond)
	defer asked.Stop()
	late := time.After(patience)
	for {
		select {
		case <-asked.C:
			if s := n.Socket(w.sid); s != nil {
				s.mail.retry() // as a query does
			}
		case <-w.closed:
			return
		case <-late:
			t.Fatal("a client whose handlers are stuck is not cut")
		}
	}
}

// The bytes of a mailbox include the memory of many small arguments.
func TestMailboxBytesCountStructures(t *testing.T) {
	n, release, handled := busy(t, Options{MailboxBytes: 100_000})
	w := n.client(t)
	event := `42["e"` + strings.Repeat(",0", 1000) + `]`
	for range 20 {
		w.write(event)
	}
	eventually(t, "the mailbox is full", func() bool { return n.Stats().MailboxFull["bytes"] > 0 })
	if got := n.Stats().EventsIn; got > 7 { // 26 kB each
		t.Errorf("got %d events taken in, want at most 7", got)
	}
	release()
	for range 20 {
		receive(t, handled)
	}
}

func TestNegativeMailboxLimit(t *testing.T) {
	for _, o := range []Options{{MailboxEvents: -1}, {MailboxBytes: -1}} {
		if _, err := NewServer(o); err == nil {
			t.Errorf("accepted: %+v", o)
		}
	}
}

// poll connects a client by polling that answers pings, and returns functions to post and
// to disconnect.
func (n *testNode) poll(t *testing.T) (post func(body string), leave func()) {
	t.Helper()
	url := "http" + strings.TrimPrefix(n.url, "ws") + "/socket.io/?EIO=4&transport=polling"
	ctx, cancel := context.WithCancel(context.Background())
	do := func(method, url, body string) string {
		r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return ""
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return "" // the test is over
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		return string(text)
	}
	var handshake struct{ SID string }
	must(t, json.Unmarshal([]byte(strings.TrimPrefix(do("GET", url, ""), "0")), &handshake))
	url += "&sid=" + handshake.SID
	var posting sync.Mutex
	post = func(body string) {
		posting.Lock()
		defer posting.Unlock()
		if got := do("POST", url, body); got != "ok" && ctx.Err() == nil {
			t.Errorf("POST answered %q", got)
		}
	}
	post("40")
	var connected struct{ SID string }
	for connected.SID == "" { // a ping may come first
		for _, p := range strings.Split(do("GET", url, ""), "\x1e") {
			if p == "2" {
				post("3")
			} else if text, ok := strings.CutPrefix(p, "40"); ok {
				must(t, json.Unmarshal([]byte(text), &connected))
			} else {
				t.Fatalf("got %q, want CONNECT", p)
			}
		}
	}
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			if strings.Contains(do("GET", url, ""), "2") {
				running.Go(func() { post("3") })
			}
		}
	})
	leave = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(func() {
		leave()
		http.DefaultClient.CloseIdleConnections()
	})
	return post, leave
}

// Slow handlers that return do not cause a cut of their client, even if half of the mailbox
// takes them long.
func TestSlowHandlersDoNotCutTheirClient(t *testing.T) {
	t.Run("events", func(t *testing.T) { slowHandlers(t, Options{MailboxEvents: 200}, "events", 240, -1) })
	t.Run("bytes", func(t *testing.T) { // the large event lies above the limit until all before it are handled
		slowHandlers(t, Options{MailboxBytes: 50_000}, "bytes", 90, 80)
	})
}

// A pause counts from the last handled event, also if that was one of the first.
func TestPauseCountsFromTheLastHandledEvent(t *testing.T) {
	t.Parallel()
	o := Options{MailboxBytes: 10_000}
	o.Engine.PingInterval, o.Engine.PingTimeout, o.Engine.PauseTimeout = 20*time.Millisecond, 100*time.Millisecond, time.Second
	n := start(t, o)
	takes := []time.Duration{200 * time.Millisecond, 920 * time.Millisecond} // each less than PauseTimeout
	handled := make(chan int, 20)
	n.On("e", func(_ context.Context, e *Event) error {
		var i int
		err := e.Arg(0, &i)
		if i < len(takes) {
			time.Sleep(takes[i])
		}
		handled <- i
		return err
	})
	w := n.client(t)
	for i := range 20 {
		data := ""
		if i == 10 {
			data = strings.Repeat("x", o.MailboxBytes) // events handled before it free no space
		}
		w.write(fmt.Sprintf(`42["e",%d,%q]`, i, data))
	}
	for i := range 20 {
		select {
		case <-handled:
		case <-w.closed:
			t.Fatalf("closed at event %d: %v", i, n.Stats().MailboxFull)
		}
	}
}

// A client that has buffered events sends them as soon as it has the answer to CONNECT.
func TestEventsRightAfterConnect(t *testing.T) {
	const events = 2 * pendingEvents
	n, release, handled := busy(t, Options{})
	release()
	n.Use(func(context.Context, *ConnectRequest) error {
		n.unconnected.mu.Lock() // so later events wait
		return nil
	})
	goOn := sync.OnceFunc(n.unconnected.mu.Unlock)
	w := n.client(t)
	t.Cleanup(goOn)
	for i := range events {
		w.write(fmt.Sprintf(`42["e",%d]`, i))
	}
	eventually(t, "all are read", func() bool { return n.Stats().EventsIn == events })
	goOn()
	for i := range events {
		if got := receive(t, handled); got != i {
			t.Fatalf("handled %d, want %d", got, i)
		}
	}
}

// slowHandlers makes a client send events, of which one is as large as the mailbox.
func slowHandlers(t *testing.T, o Options, limit string, events, large int) {
	t.Parallel()
	o.Engine.PingInterval, o.Engine.PingTimeout, o.Engine.PauseTimeout = 20*time.Millisecond, time.Second, time.Second
	n := start(t, o)
	handled := make(chan int, events)
	n.On("e", func(_ context.Context, e *Event) error {
		time.Sleep(20 * time.Millisecond) // half of the mailbox takes twice the pause
		var i int
		err := e.Arg(0, &i)
		handled <- i
		return err
	})
	w := n.client(t)
	for i := range events {
		data := ""
		if i == large {
			data = strings.Repeat("x", o.MailboxBytes)
		}
		w.write(fmt.Sprintf(`42["e",%d,%q]`, i, data))
	}
	for i := range events {
		select {
		case got := <-handled:
			if got != i {
				t.Fatalf("handled %d, want %d", got, i)
			}
		case <-w.closed:
			t.Fatalf("closed at event %d: %v", i, n.Stats().MailboxFull)
		}
	}
	if full := n.Stats().MailboxFull; full[limit] == 0 || full["pause"] > 0 {
		t.Errorf("full: %v", full)
	}
}

// While reading is paused the session is kept, although the client's answers are not read.
func TestSessionIsKeptDuringAPause(t *testing.T) {
	t.Parallel()
	n, release, _ := busy(t, Options{MailboxEvents: 10})
	w := n.client(t)
	for i := range 30 {
		w.write(fmt.Sprintf(`42["e",%d]`, i))
	}
	eventually(t, "the mailbox is full", func() bool { return n.Stats().MailboxFull["events"] > 0 })
	n.pings(t, 2)
	conn := n.Socket(w.sid).client.conn
	now := time.Now()
	if alive := conn.Alive(); alive.Before(now) {
		t.Errorf("counts as silent for %v", now.Sub(alive))
	}
	release()
}

// An event that waits for space when the server disconnects its socket is not handled
// after OnDisconnect.
func TestNoEventAfterDisconnect(t *testing.T) {
	n := start(t, Options{MailboxEvents: 4})
	begin := make(chan struct{})
	order := make(chan string, 20)
	n.OnConnect(func(s *Socket) { s.OnDisconnect(func(Reason) { order <- "disconnect" }) })
	n.On("e", func(context.Context, *Event) error {
		<-begin
		order <- "event"
		return nil
	})
	w := n.client(t)
	for range 10 {
		w.write(`42["e"]`)
	}
	eventually(t, "the mailbox is full", func() bool { return n.Stats().MailboxFull["events"] > 0 })
	s := n.Socket(w.sid)
	s.Disconnect(false)
	eventually(t, "the socket has ended", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.stage.gone() && s.client.parked.Load() == nil
	})
	close(begin)
	for receive(t, order) != "disconnect" {
	}
	s.mail.mu.Lock()
	defer s.mail.mu.Unlock()
	if s.mail.events > 0 || len(order) > 0 {
		t.Errorf("%d events after OnDisconnect", s.mail.events+len(order))
	}
}

// A connection that ends while reading is paused loses all unread events from some event
// on. No later one is handled, even if the server has received it in the body of a POST.
func TestEventsHaveNoGapAfterAPause(t *testing.T) {
	const events = 500
	n := start(t, Options{MailboxEvents: 4})
	proceed := make(chan struct{})
	handled := make(chan int, events)
	ended := make(chan struct{})
	n.OnConnect(func(s *Socket) { s.OnDisconnect(func(Reason) { close(ended) }) })
	n.On("e", func(_ context.Context, e *Event) error {
		<-proceed
		var i int
		err := e.Arg(0, &i)
		handled <- i
		return err
	})
	post, _ := n.poll(t)
	var body []string
	for i := range events {
		body = append(body, fmt.Sprintf(`42["e",%d]`, i))
	}
	post(strings.Join(body, "\x1e"))
	eventually(t, "the mailbox is full", func() bool { return n.Stats().MailboxFull["events"] > 0 })
	for c := range n.engine.Conns() {
		_ = c.Close(engineio.TransportClose)
	}
	close(proceed)
	receive(t, ended)
	close(handled)
	want := 0
	for got := range handled {
		if got != want {
			t.Fatalf("handled %d after %d events, want %d", got, want, want)
		}
		want++
	}
}

// A drain reads events that wait for space in a mailbox, without handling them, because
// acks come behind them.
func TestDrainReadsAcksBehindAFullMailbox(t *testing.T) {
	n := start(t, Options{MailboxEvents: 4})
	answered := make(chan error, 1)
	n.On("ask", func(_ context.Context, e *Event) error {
		_, err := e.Socket().EmitWithAck(context.Background(), "q")
		answered <- err
		return nil
	})
	w := n.client(t)
	w.write(`42["ask"]`)
	id := w.query()
	for range 20 { // more than is read for an ack
		w.write(`42["e"]`)
	}
	eventually(t, "the mailbox is full", func() bool { return n.Stats().MailboxFull["events"] > 0 })
	w.write("43" + id + "[]")
	must(t, n.Drain(t.Context(), 0))
	must(t, receive(t, answered))
}

// The server disconnects a client in one namespace while unread events for it are behind
// its full mailbox. The client's other namespaces are not affected.
func TestDisconnectOfASocketWithAFullMailbox(t *testing.T) {
	t.Parallel()
	n, release, _ := busy(t, Options{MailboxEvents: 10})
	joining(n.Of("/other"))
	w := n.client(t)
	for i := range 50 {
		w.write(fmt.Sprintf(`42["e",%d]`, i))
	}
	eventually(t, "the mailbox is full", func() bool { return n.Stats().MailboxFull["events"] > 0 })
	n.Socket(w.sid).Disconnect(false)
	if m := w.next(); m != "41" {
		t.Errorf("got %s, want 41", m)
	}
	release()
	w.connect("/other", "") // behind the events
	if got := w.call(`["ping me"]`); got != `[]` {
		t.Errorf("got %s, want %s", got, `[]`)
	}
}

// A client may connect again as soon as it has been told of its disconnect: the server has
// ended the socket by then.
func TestConnectRightAfterDisconnect(t *testing.T) {
	n := start(t, Options{})
	w := n.client(t)
	s := n.Socket(w.sid)
	go func() { _, _ = s.EmitWithAck(t.Context(), "q") }() // ends with the socket
	w.query()
	s.mu.Lock()
	var asked *responder
	for _, asked = range s.acks {
	}
	s.mu.Unlock()
	asked.mu.Lock() // so the end of the socket takes a while
	goOn := sync.OnceFunc(asked.mu.Unlock)
	t.Cleanup(goOn)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Disconnect(false)
	}()
	select {
	case m := <-w.in:
		w.in <- m
	case <-time.After(50 * time.Millisecond): // the client is told at the end only
		goOn()
	}
	if m := w.next(); m != "41" {
		t.Fatalf("got %q, want DISCONNECT", m)
	}
	w.connect("/", "")
	goOn()
	receive(t, ended)
}

// Events that wait for handlers, and those that are being handled, are bounded for all
// sockets together: beyond the budget the connection that holds the most is closed, and its
// waiting events are dropped; others lose nothing.
func TestEventsBehindHandlersAreBounded(t *testing.T) {
	n, release, handled := busy(t, Options{ReceiveBudget: 150 << 10})
	received := func(what string, bytes int) {
		t.Helper()
		eventually(t, what, func() bool { return n.Stats().ReceivedBytes/(10<<10) == bytes/(10<<10) })
	}
	send := func(w *wire, i, size int) { w.sendLarge("", i, size) }
	large, other := n.client(t), n.client(t)
	send(large, 1, 32<<10)
	received("it is handled", 32<<10)
	send(large, 2, 64<<10)
	received("another one waits", 96<<10)
	send(other, 3, 32<<10)
	received("the other one's is handled", 128<<10)
	send(other, 4, 32<<10)
	large.gone()
	received("what waited is dropped", 96<<10)
	release()
	got := map[int]bool{}
	for range 3 {
		got[receive(t, handled)] = true
	}
	if !got[1] || !got[3] || !got[4] {
		t.Errorf("handled %v", got)
	}
	received("nothing is held", 0)
	eventually(t, "one is disconnected", func() bool { return n.Stats().Sockets == 1 })
	if st := n.Stats(); st.Limited[limitReceiveBudget] != 1 {
		t.Errorf("limits %v", st.Limited)
	}
	n.received.mu.Lock()
	defer n.received.mu.Unlock()
	if len(n.received.clients) > 0 {
		t.Errorf("%d clients are counted, want 0", len(n.received.clients))
	}
}

// sendLarge sends an event with an attachment.
func (w *wire) sendLarge(namespace string, i, size int) {
	w.write(fmt.Sprintf(`451-%s["e",%d,{"_placeholder":true,"num":0}]`, namespace, i))
	w.writeBinary(make([]byte, size))
}

// Events that arrive before the answer to CONNECT no longer count if it is refused, or if
// the connection ends before.
func TestEventsBeforeCONNECTAreNotCountedForEver(t *testing.T) {
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprint("cut=", cut), func(t *testing.T) {
			n := start(t, Options{})
			answer := make(chan struct{})
			n.Of("/closed").Use(func(context.Context, *ConnectRequest) error {
				<-answer
				if cut {
					return nil
				}
				return errors.New("no")
			})
			w := n.dial(t)
			w.write("40/closed,")
			w.sendLarge("/closed,", 1, 64<<10)
			eventually(t, "it waits", func() bool { return n.Stats().ReceivedBytes > 0 })
			if cut {
				w.cut()
				eventually(t, "the connection has ended", func() bool { return n.clientCount() == 0 })
			}
			close(answer)
			eventually(t, "nothing is held", func() bool { return n.Stats().ReceivedBytes == 0 })
		})
	}
}

// If one connection's handler holds nearly the whole budget, closing that connection is
// enough, although nothing is freed before the handler returns. The same holds if the
// connection has ended with events that wait for the handler.
func TestOthersAreNotClosedForWhatAHandlerHolds(t *testing.T) {
	for _, ended := range []bool{false, true} {
		t.Run(fmt.Sprint("ended=", ended), func(t *testing.T) {
			n, release, _ := busy(t, Options{ReceiveBudget: 200 << 10})
			received := func(w *wire, size int) {
				t.Helper()
				before := n.Stats().ReceivedBytes
				w.sendLarge("", 1, size)
				eventually(t, "it has come", func() bool { return n.Stats().ReceivedBytes > before })
			}
			w := n.client(t)
			received(w, 30<<10)
			received(w, 90<<10)
			others := 0
			for ; others < 6; others++ {
				received(n.client(t), 10<<10)
			}
			if ended {
				w.cut()
				eventually(t, "it has ended", func() bool { return n.clientCount() == others })
			}
			last := n.client(t)
			last.sendLarge("", 1, 40<<10)
			eventually(t, "one is closed", func() bool { return n.Stats().Limited[limitReceiveBudget] > 0 })
			if !ended {
				w.gone()
			}
			n.outlast(t)
			release()
			eventually(t, "nothing is held", func() bool { return n.Stats().ReceivedBytes == 0 && n.received.closing.Load() == 0 })
			if got := n.Stats().Limited[limitReceiveBudget]; got != 1 {
				t.Errorf("%d connections are closed, want 1", got)
			}
		})
	}
}

// A client that sends much is closed before clients whose events have been in slow handlers
// for long.
func TestClientsOfSlowHandlersAreNotClosedFirst(t *testing.T) {
	n, release, _ := busy(t, Options{ReceiveBudget: 200 << 10})
	for range 6 {
		before := n.Stats().ReceivedBytes
		n.client(t).sendLarge("", 1, 10<<10)
		eventually(t, "it has arrived as a whole", func() bool { return n.Stats().ReceivedBytes > before+10<<10 })
	}
	n.received.mu.Lock() // as if it had waited for long
	for c, is := range n.received.clients {
		if !is.since.IsZero() {
			is.since = is.since.Add(-2 * receivedPatience)
		}
		n.received.clients[c] = is
	}
	n.received.mu.Unlock()
	w := n.client(t)
	w.sendLarge("", 1, 30<<10)
	w.sendLarge("", 1, 130<<10)
	w.gone()
	n.outlast(t)
	release()
	if got := n.Stats().Limited[limitReceiveBudget]; got != 1 {
		t.Errorf("%d connections are closed, want 1", got)
	}
}

// The uncounted bytes are few, even if each connection of a node has them in each place.
func TestSmallEventsAreCounted(t *testing.T) {
	const size, clients = 3 << 10, 10
	for _, place := range []struct {
		name  string
		holds func(*wire)
	}{
		{"handler", func(w *wire) { w.sendLarge("", 1, size) }},
		{"mailbox", func(w *wire) {
			w.write(`42["e",1]`)
			w.sendLarge("", 2, size)
		}},
		{"reader", func(w *wire) {
			w.write(`452-["e",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`)
			w.writeBinary(make([]byte, size))
		}},
	} {
		t.Run(place.name, func(t *testing.T) {
			n, _, _ := busy(t, Options{})
			for range clients {
				place.holds(n.client(t))
			}
			eventually(t, "they are counted", func() bool { return n.Stats().ReceivedBytes >= clients*(size-receivedStep) })
		})
	}
}

// Only a reader that waits for attachments is closed before others.
func TestReadersThatWaitForHandlersAreNotLate(t *testing.T) {
	var b receiveBudget
	c := new(client)
	for _, waits := range []bool{false, true, false} {
		c.holds = waits
		b.holds(c, smallReceived)
		if since := b.clients[c].since; since.IsZero() == waits {
			t.Errorf("waits for attachments: %v, since %v", waits, since)
		}
	}
}

// A reader that has put its event no longer waits for anything.
func TestPutEventEndsTheWait(t *testing.T) {
	m := mailbox{open: true}
	m.awaitSpace(limitBudget, mailLimit{10, 10})
	if full, err := m.putEvent(nil, mailLimit{10, 1000}, false, &Event{socket: new(Socket)}); full != nil || err != nil || m.full != nil {
		t.Errorf("got %v, %v, and the mailbox has %v", full, err, m.full)
	}
}

// An event that the reader has held counts once when it is put.
func TestAParkedEventCountsOnce(t *testing.T) {
	n, release, handled := busy(t, Options{ReceiveBudget: 200 << 10, MailboxBytes: 20 << 10})
	w := n.client(t)
	mail := &n.Socket(w.sid).mail
	w.sendLarge("", 1, 1<<10)
	eventually(t, "it is handled", func() bool {
		mail.mu.Lock()
		defer mail.mu.Unlock()
		return n.Stats().EventsIn == 1 && mail.events == 0 && mail.running
	})
	w.sendLarge("", 2, 24<<10)
	w.sendLarge("", 3, 110<<10)
	eventually(t, "it waits for space", func() bool { return n.Stats().ReceivedBytes > 110<<10 })
	release()
	for i := range 3 {
		if got := receive(t, handled); got != i+1 {
			t.Errorf("handled %d, want %d", got, i+1)
		}
	}
	if st := n.Stats(); st.Limited[limitReceiveBudget] != 0 {
		t.Errorf("limits %v", st.Limited)
	}
}

// From half of the budget on, connections whose events wait are not read, and are not
// closed for it. Others are read.
func TestEventsAreNotReadNearTheBudget(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	n, release, handled := busy(t, Options{ReceiveBudget: 200 << 10, Logger: zap.New(core)})
	n.On("echo", func(_ context.Context, e *Event) error { return e.Ack() })
	var all []*wire
	for range 3 { // 180 KiB, of which 30 KiB are being handled
		w := n.client(t)
		all = append(all, w)
		for i := range 6 {
			w.write(fmt.Sprintf(`42["e",%d,%q]`, i, strings.Repeat("x", 10<<10)))
		}
	}
	eventually(t, "they are not read", func() bool { return n.Stats().MailboxFull[limitBudget] >= 2 })
	eventually(t, "that is logged", func() bool { return logs.Len() > 0 })
	line := logs.All()[0]
	if line.Message != "receive budget half used: reading paused until handlers catch up" || line.ContextMap()["receive_budget"] != int64(200<<10) {
		t.Errorf("logged %s %v", line.Message, line.ContextMap())
	}
	another := n.client(t)
	another.write(`420["echo"]`)
	if got := another.next(); got != "430[]" {
		t.Errorf("got %s, want 430[]", got)
	}
	release()
	for range 18 {
		receive(t, handled)
	}
	eventually(t, "nothing is held", func() bool { return n.Stats().ReceivedBytes == 0 })
	if st := n.Stats(); st.Sockets != len(all)+1 || st.Limited[limitReceiveBudget] != 0 {
		t.Errorf("%d sockets, limits %v", st.Sockets, st.Limited)
	}
}

// A client that sends many events before it reads anything gets all their acks, even with a small send
// queue.
func TestAcksOfManyEvents(t *testing.T) {
	const events = 3000
	n := start(t, Options{Engine: engineio.Options{SendQueueBytes: 32 << 10}})
	n.On("e", func(_ context.Context, e *Event) error { return e.Ack(strings.Repeat("a", 100)) })
	ws, _, err := websocket.DefaultDialer.Dial(n.url+"/socket.io/?EIO=4&transport=websocket", nil)
	must(t, err)
	defer func() { _ = ws.Close() }()
	must(t, ws.WriteMessage(websocket.TextMessage, []byte("40")))
	for connected := false; !connected; {
		_, text, err := ws.ReadMessage()
		must(t, err)
		connected = strings.HasPrefix(string(text), "40")
	}
	for i := range events {
		must(t, ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `42%d["e"]`, i)))
	}
	for next := 0; next < events; {
		_, text, err := ws.ReadMessage()
		if err != nil {
			t.Fatalf("after %d acks: %v", next, err)
		}
		if strings.HasPrefix(string(text), "43") {
			if want := fmt.Sprintf("43%d[", next); !strings.HasPrefix(string(text), want) {
				t.Fatalf("got %.20s, want %s", text, want)
			}
			next++
		}
	}
}

// Large answers in several namespaces of one connection do not cut it: each waits for the others.
func TestLargeAcksInManyNamespaces(t *testing.T) {
	const namespaces, size = 8, 40 << 10
	n := start(t, Options{Engine: engineio.Options{SendQueueBytes: 100 << 10}})
	var begun sync.WaitGroup
	begun.Add(namespaces)
	names := make([]string, namespaces)
	for i := range names {
		names[i] = fmt.Sprintf("/%d", i)
		n.Of(names[i]).On("e", func(_ context.Context, e *Event) error {
			begun.Done()
			begun.Wait() // so that none is queued yet
			return e.Ack(strings.Repeat("a", size))
		})
	}
	poll, post := n.polling(t)
	for _, name := range names {
		post("40" + name + ",")
		poll()
	}
	for _, name := range names {
		post("42" + name + `,1["e"]`)
	}
	begun.Wait()
	eventually(t, "an answer is queued", func() bool { return n.Stats().Engine.QueuedBytes > size })
	for acks := 0; acks < namespaces; {
		acks += strings.Count(poll(), "43/")
	}
}

// Answers of any size, in any number of namespaces, wait until the client has read earlier ones.
func TestSmallAcksInManyNamespaces(t *testing.T) {
	const namespaces, events, size = 8, 16, 3 << 10
	n := start(t, Options{Engine: engineio.Options{SendQueueBytes: 64 << 10}})
	asked := make(chan *Event, namespaces*events)
	names := make([]string, namespaces)
	for i := range names {
		names[i] = fmt.Sprintf("/%d", i)
		n.Of(names[i]).On("e", func(_ context.Context, e *Event) error {
			asked <- e
			return nil
		})
	}
	poll, post := n.polling(t)
	for _, name := range names {
		post("40" + name + ",")
		poll()
	}
	for id := range events {
		for _, name := range names {
			post(fmt.Sprintf(`42%s,%d["e"]`, name, id))
		}
	}
	var acked sync.WaitGroup
	for range namespaces * events { // six times the size of the queue
		e := receive(t, asked)
		acked.Go(func() {
			if err := e.Ack(strings.Repeat("a", size)); err != nil {
				t.Error(err)
			}
		})
	}
	for acks := 0; acks < namespaces*events; {
		acks += strings.Count(poll(), "43/")
	}
	acked.Wait()
}

// An ack that waits behind those of another namespace stops waiting when its socket ends.
func TestAckOfASocketThatHasEnded(t *testing.T) {
	n := start(t, Options{Engine: engineio.Options{SendQueueBytes: 100 << 10}})
	n.On("large", func(_ context.Context, e *Event) error { return e.Ack(strings.Repeat("a", 30<<10)) })
	other := n.Of("/b")
	handling, acked, ended := make(chan struct{}, 1), make(chan error, 1), make(chan Reason, 1)
	other.OnConnect(func(s *Socket) { s.OnDisconnect(func(r Reason) { ended <- r }) })
	other.On("another", func(_ context.Context, e *Event) error {
		handling <- struct{}{}
		acked <- e.Ack(strings.Repeat("b", 30<<10))
		return nil
	})
	poll, post := n.polling(t)
	for _, name := range []string{"40", "40/b,"} {
		post(name)
		poll()
	}
	post(`421["large"]` + "\x1e" + `422["large"]`)
	eventually(t, "the first answer is queued", func() bool { return n.Stats().Engine.QueuedBytes > 30<<10 })
	post(`42/b,1["another"]`)
	receive(t, handling)
	post("41/b,")
	if err := receive(t, acked); !errors.Is(err, ErrDisconnected) {
		t.Errorf("Ack returned %v, want ErrDisconnected", err)
	}
	if r := receive(t, ended); r != ClientDisconnect {
		t.Errorf("ended for %q, want %q", r, ClientDisconnect)
	}
	poll()
}

// A handler whose answer waits for a slow client is not stuck, even if the wait is long.
func TestHandlersThatWaitForASlowClient(t *testing.T) {
	const pause, answers = 2 * time.Second, 8
	n := start(t, Options{MailboxEvents: 2, Engine: engineio.Options{
		SendQueueBytes: 32 << 20, PauseTimeout: pause, PingInterval: 500 * time.Millisecond,
	}})
	n.On("e", func(_ context.Context, e *Event) error { return e.Ack(strings.Repeat("a", 40<<10)) })
	w := n.dialSlow(t).connect("/", "")
	for range 100 {
		must(t, n.Emit(t.Context(), "x", strings.Repeat("b", 100_000)))
	}
	for i := range answers {
		w.write(fmt.Sprintf(`42%d["e"]`, i))
	}
	line := time.NewTicker(50 * time.Millisecond) // two messages in 100 ms: five times the pause in all
	defer line.Stop()
	for acks := 0; acks < answers; {
		<-line.C
		if m := w.next(); strings.HasPrefix(m, "43") {
			acks++
		}
	}
}

// The same if its answer waits for its turn, behind those of other namespaces, none of which waits for
// long.
func TestHandlersThatWaitForTheirTurn(t *testing.T) {
	const namespaces, events, pause = 9, 6, time.Second
	n := start(t, Options{MailboxEvents: 2, Engine: engineio.Options{PauseTimeout: pause, PingInterval: 250 * time.Millisecond}})
	handling := make(chan struct{}, namespaces+events)
	for i := range namespaces {
		n.Of(fmt.Sprintf("/%d", i)).On("e", func(_ context.Context, e *Event) error {
			handling <- struct{}{}
			return e.Ack(strings.Repeat("a", 70<<10))
		})
	}
	poll, post := n.polling(t)
	for i := range namespaces {
		post(fmt.Sprintf("40/%d,", i))
		poll()
	}
	for i := namespaces - 1; i >= 0; i-- {
		post(fmt.Sprintf(`42/%d,0["e"]`, i))
		receive(t, handling)
	}
	posted := make(chan struct{})
	go func() { // the reader waits for /0
		defer close(posted)
		post(strings.TrimSuffix(strings.Repeat(`42/0,1["e"]`+"\x1e", events), "\x1e"))
	}()
	line := time.NewTicker(pause / 3)
	defer line.Stop()
	for acks := 0; acks < namespaces+events; <-line.C {
		acks += strings.Count(poll(), "43/")
	}
	<-posted
}

// A log line names the limit that a slow client has reached.
func TestFullSendQueueIsLogged(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	n := start(t, Options{Logger: zap.New(core), Engine: engineio.Options{SendQueueBytes: 10 << 10}})
	_, post := n.polling(t)
	post("40")
	eventually(t, "it is connected", func() bool { return n.Stats().Sockets == 1 })
	for range 20 {
		must(t, n.Emit(t.Context(), "e", strings.Repeat("x", 1<<10)))
	}
	eventually(t, "it is logged", func() bool {
		return logs.FilterMessage("connection limit reached").FilterField(zap.String("limit", "send_queue")).Len() == 1
	})
	if cut := n.Stats().Engine.SlowClients; cut != 1 {
		t.Errorf("%d clients were cut, want 1", cut)
	}
}

// polling opens a polling session and returns functions to poll and to post.
func (n *testNode) polling(t *testing.T) (poll func() string, post func(body string)) {
	query := "http" + strings.TrimPrefix(n.url, "ws") + "/socket.io/?EIO=4&transport=polling"
	poll = func() string {
		res, err := http.Get(query)
		must(t, err)
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(res.Body)
		must(t, err)
		if res.StatusCode != http.StatusOK {
			t.Fatalf("the connection was closed: %s", body)
		}
		return string(body)
	}
	post = func(body string) {
		res, err := http.Post(query, "text/plain", strings.NewReader(body))
		must(t, err)
		must(t, res.Body.Close())
	}
	_, id, _ := strings.Cut(poll(), `"sid":"`)
	id, _, _ = strings.Cut(id, `"`)
	query += "&sid=" + id
	return poll, post
}

// A client that reads too slowly for a room can leave it, and events that it sent before it left its
// namespace are handled.
func TestEventsOfASlowReader(t *testing.T) {
	n := start(t, Options{Engine: engineio.Options{SendQueueBytes: 100 << 10}})
	joining(n.Namespace)
	handled := make(chan error, 20)
	n.On("last", func(ctx context.Context, _ *Event) error {
		handled <- ctx.Err()
		return nil
	})
	poll, post := n.polling(t)
	post("40")
	poll()
	post(`420["join","r"]`)
	poll()
	must(t, n.To("r").Emit(t.Context(), "large", strings.Repeat("a", 60<<10)))
	eventually(t, "more than half of its queue is used", func() bool { return n.Stats().Engine.QueuedBytes > 50<<10 })
	var sock *Socket
	for s := range n.Sockets() {
		sock = s
	}
	post(`42["leave","r"]`)
	eventually(t, "it has left the room", func() bool { return !sock.InRoom("r") })
	post(strings.Repeat(`42["last"]`+"\x1e", cap(handled)) + "41")
	for range cap(handled) {
		must(t, receive(t, handled))
	}
}

// A client that reads nothing while its events wait is cut, although its pongs are not read either.
func TestClientThatTakesNothing(t *testing.T) {
	n := start(t, Options{Engine: engineio.Options{SendQueueBytes: 100 << 10, PingTimeout: 200 * time.Millisecond}})
	joining(n.Namespace)
	poll, post := n.polling(t)
	post("40")
	poll()
	post(`42["none"]`) // a handled event
	must(t, n.Emit(t.Context(), "large", strings.Repeat("a", 60<<10)))
	eventually(t, "more than half of its queue is used", func() bool { return n.Stats().Engine.QueuedBytes > 50<<10 })
	post(strings.Repeat(`42["none"]`+"\x1e", 10) + `42["none"]`)
	eventually(t, "it is cut", func() bool { return n.Len() == 0 })
	if n.Stats().Limited[limitReadProgress] != 1 {
		t.Errorf("not counted: %v", n.Stats().Limited)
	}
}

// Payloads of CONNECTs count until middlewares have returned. Beyond the budget a connection with a
// large one is closed, and those with small ones are not.
func TestConnectPayloadsAreBounded(t *testing.T) {
	const large = 50 << 10
	n := start(t, Options{ReceiveBudget: 4 * large})
	begin := make(chan struct{})
	n.Use(func(ctx context.Context, _ *ConnectRequest) error {
		select {
		case <-begin:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	connecting := func(size int) *wire {
		w := n.dial(t)
		w.write(`40{"x":"` + strings.Repeat("x", size-8) + `"}`)
		return w
	}
	small := []*wire{connecting(receivedStep - 1), connecting(2 << 10)}
	eventually(t, "the second is counted", func() bool { return n.Stats().ReceivedBytes == 2<<10 })
	var big []*wire
	for range 6 {
		big = append(big, connecting(large))
	}
	eventually(t, "three are closed", func() bool {
		st := n.Stats()
		return st.Limited[limitReceiveBudget] == 3 && st.ReceivedBytes == 3*large+2<<10
	})
	var kept []*wire
	eventually(t, "three have seen it", func() bool {
		kept = slices.DeleteFunc(slices.Clone(big), func(w *wire) bool {
			select {
			case <-w.closed:
				return true
			default:
				return false
			}
		})
		return len(kept) == 3
	})
	close(begin)
	for _, w := range append(kept, small...) {
		w.connected()
	}
	eventually(t, "nothing is counted", func() bool { return n.Stats().ReceivedBytes == 0 })
}

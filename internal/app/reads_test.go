package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/auth"
	"github.com/rejoin-io/rejoin/internal/limit"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// countedReads counts the reads of history, and holds them.
type countedReads struct {
	adapter.Adapter
	reads atomic.Int32
	begun chan struct{} // receives a value for each held read
	held  chan struct{} // nil, or closed to release them
	fails error         // of each Publish; set before the first one
	lost  atomic.Int32  // how many of the next answers of Publish are lost
	ids   atomic.Int32  // untrusted ids of Publish
	bad   error         // of each History; likewise
}

func (c *countedReads) History(ctx context.Context, room rooms.Room, page adapter.Page) ([]adapter.Event, bool, error) {
	c.reads.Add(1)
	if c.held != nil {
		c.begun <- struct{}{}
		<-c.held
	}
	if c.bad != nil {
		return nil, false, c.bad
	}
	return c.Adapter.History(ctx, room, page)
}

func (c *countedReads) Publish(ctx context.Context, ev adapter.Event) (adapter.Receipt, error) {
	if c.fails != nil {
		return adapter.Receipt{}, c.fails
	}
	if ev.Once != nil && ev.Once.Untrusted {
		c.ids.Add(1)
	}
	r, err := c.Adapter.Publish(ctx, ev)
	if c.lost.Add(-1) >= 0 {
		return adapter.Receipt{}, adapter.ErrUnavailable
	}
	return r, err
}

// serveApp starts a node with the application and returns it and its URL.
func serveApp(t *testing.T, o Options, before ...socketio.Handler) (*countedReads, *socketio.Server, string) {
	t.Helper()
	return serveWith(t, o, nil, before...)
}

// serveWith is serveApp with a session store; nil for one in memory.
func serveWith(t *testing.T, o Options, sessions session.Store, before ...socketio.Handler) (*countedReads, *socketio.Server, string) {
	t.Helper()
	node, err := adapter.NewMemory(adapter.MemoryOptions{}).Node("a")
	if err != nil {
		t.Fatal(err)
	}
	counted := &countedReads{Adapter: node, begun: make(chan struct{}, 1)}
	srv, err := socketio.NewServer(socketio.Options{Adapter: counted, Sessions: sessions})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range before {
		srv.Of("/").OnAny(h)
	}
	if reflect.ValueOf(o.Anonymous).IsZero() {
		o.Anonymous = auth.Everything()
	}
	New(o).Register(srv.Of("/"))
	web := httptest.NewServer(srv)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := srv.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
		web.Close()
		_ = node.Close()
	})
	return counted, srv, "ws" + strings.TrimPrefix(web.URL, "http")
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond) // between two checks, not in place of one
	}
}

// A rawClient writes packets unchanged.
type rawClient struct {
	*testing.T
	*websocket.Conn
	calls int
}

func dialApp(t *testing.T, url string, parameters ...string) *rawClient {
	t.Helper()
	ws, _, err := websocket.DefaultDialer.Dial(url+"/socket.io/?EIO=4&transport=websocket&"+strings.Join(parameters, "&"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	c := &rawClient{T: t, Conn: ws}
	c.next()
	c.write("40")
	c.next()
	return c
}

func (c *rawClient) write(text string, attachments ...string) {
	c.Helper()
	if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		c.Fatal(err)
	}
	for _, a := range attachments {
		if err := c.WriteMessage(websocket.BinaryMessage, []byte(a)); err != nil {
			c.Fatal(err)
		}
	}
}

func (c *rawClient) next() string {
	c.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	kind, data, err := c.ReadMessage()
	if err != nil {
		c.Fatal(err)
	}
	if kind == websocket.BinaryMessage {
		return "binary"
	}
	return string(data)
}

type appReply struct {
	OK       bool
	Code     code
	Offset   string
	Repeated bool
	Message  string
	MayHave  bool `json:"mayHaveHappened"`
	Events   []struct {
		Offset  string
		Args    []json.RawMessage
		TooDeep bool
	}
	More    bool
	Partial bool
	Count   int
	Members []socketio.Member
}

// call sends an event with its attachments and returns the ack, and how many
// attachments it has. It drops events.
func (c *rawClient) call(array string, attachments ...string) (r appReply, n int) {
	c.Helper()
	c.calls++
	count := ""
	if len(attachments) > 0 {
		count = fmt.Sprintf("5%d-", len(attachments))
	} else {
		count = "2"
	}
	c.write(fmt.Sprintf("4%s%d%s", count, c.calls, array), attachments...)
	for {
		text := c.next()
		if strings.HasPrefix(text, "46") {
			head, _, _ := strings.Cut(text[2:], "-")
			fmt.Sscan(head, &n)
			for range n {
				c.next()
			}
		}
		at := strings.Index(text, "[")
		if !strings.HasPrefix(text, "43") && !strings.HasPrefix(text, "46") {
			continue
		}
		var args []appReply
		if err := json.Unmarshal([]byte(text[at:]), &args); err != nil {
			c.Fatalf("the ack %.300s: %v", text, err)
		}
		return args[0], n
	}
}

// history reads all pages of a room, newest first, and returns their sizes and the
// first arguments of all events.
func (c *rawClient) history(limit int) (pages []int, attachments int, events []string) {
	c.Helper()
	before := ""
	for {
		r, n := c.call(fmt.Sprintf(`["history","x",{"limit":%d,"before":%q}]`, limit, before))
		if !r.OK || len(r.Events) == 0 && r.More || n > packet.MaxAttachments {
			c.Fatalf("%d attachments in a page: %+v", n, r)
		}
		attachments += n
		pages = append(pages, len(r.Events))
		for i := len(r.Events) - 1; i >= 0; i-- {
			first := fmt.Sprint("too deep ", len(r.Events[i].Args))
			if !r.Events[i].TooDeep {
				first = string(r.Events[i].Args[0])
			}
			events = append(events, first)
		}
		if !r.More {
			return pages, attachments, events
		}
		before = r.Events[0].Offset
	}
}

const placeholders = `{"_placeholder":true,"num":0}`

// A page of history holds as many events as one ack can: an ack with more attachments
// than a packet may have could not be sent, and the client would wait for it.
func TestHistoryOfManyAttachments(t *testing.T) {
	_, _, url := serveApp(t, Options{})
	c := dialApp(t, url)
	c.call(`["join","x"]`)
	want, sent := []string{}, 0
	for i := range 25 {
		if i%3 == 2 {
			c.call(fmt.Sprintf(`["to","x","n",%d]`, i))
		} else {
			c.call(fmt.Sprintf(`["to","x","n",%d,%s]`, i, placeholders), "binary")
			sent++
		}
		want = append([]string{fmt.Sprint(i)}, want...)
	}
	ten := make([]string, packet.MaxAttachments)
	args := `"ten"`
	for i := range ten {
		ten[i] = "binary"
		args += fmt.Sprintf(`,{"_placeholder":true,"num":%d}`, i)
	}
	c.call(`["to","x","n",`+args+`]`, ten...)
	want = append([]string{`"ten"`}, want...)
	pages, attachments, events := c.history(200)
	if fmt.Sprint(events) != fmt.Sprint(want) || attachments != sent+len(ten) {
		t.Errorf("pages of %d events, %d attachments: %s\nwant %d: %s", pages, attachments, events, sent+len(ten), want)
	}
	if fmt.Sprint(pages) != "[1 15 10]" {
		t.Errorf("pages of %d events, want them as large as they can be", pages)
	}
}

// An event is nested deeper in an ack of history than in its own packet.
func TestHistoryOfDeepEvents(t *testing.T) {
	_, _, url := serveApp(t, Options{})
	c := dialApp(t, url)
	c.call(`["join","x"]`)
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	most := packet.MaxDepth - 5
	for _, arg := range []string{`"first"`, deep(most), deep(most + 1), deep(packet.MaxDepth - 1), `"` + strings.Repeat("[", 600) + `"`} {
		if r, _ := c.call(`["to","x","n",` + arg + `]`); !r.OK {
			t.Fatalf("to: %+v", r)
		}
	}
	_, _, events := c.history(200)
	want := []string{`"` + strings.Repeat("[", 600) + `"`, "too deep 0", "too deep 0", deep(most), `"first"`}
	if fmt.Sprint(events) != fmt.Sprint(want) {
		t.Errorf("got %.1000s", fmt.Sprint(events))
	}
}

// A page is bounded in bytes as well, but an event that is larger has one of its own.
func TestHistoryOfLargeEvents(t *testing.T) {
	_, _, url := serveApp(t, Options{})
	c := dialApp(t, url)
	c.call(`["join","x"]`)
	for _, size := range []int{100, 300_000, 100_000, 100_000, 100_000, 100} {
		c.call(`["to","x","n","` + strings.Repeat("x", size) + `"]`)
	}
	if pages, _, _ := c.history(200); fmt.Sprint(pages) != "[3 1 1 1]" {
		t.Errorf("pages of %d events", pages)
	}
}

// A result that cannot be encoded as an ack is answered with a failure.
func TestEveryRequestIsAnswered(t *testing.T) {
	_, srv, url := serveApp(t, Options{})
	srv.Of("/chan").On("ask", func(_ context.Context, e *socketio.Event) error { return answer(e, make(chan int)) })
	c := dialApp(t, url)
	c.write("40/chan,")
	c.next()
	c.write(`42/chan,7["ask"]`)
	if got := c.next(); !strings.HasPrefix(got, `43/chan,7[{"ok":false,"code":"bad_request"`) {
		t.Errorf("answered with %s", got)
	}
}

// The answer to an unknown event does not repeat the whole name, with escapes that take several bytes each.
func TestLongNamesAreNotRepeated(t *testing.T) {
	_, _, url := serveApp(t, Options{})
	c := dialApp(t, url)
	if r, _ := c.call(`["` + strings.Repeat("\x7f", 100_000) + `"]`); r.Code != unknownEvent || len(r.Message) > 1000 {
		t.Errorf("got %s, %d bytes, want %s, at most 1000", r.Code, len(r.Message), unknownEvent)
	}
}

// Nothing is read for a client that does not request an ack, or has disconnected.
func TestReadsThatNobodyWaitsFor(t *testing.T) {
	var seen atomic.Pointer[socketio.Event] // the last
	counted, srv, url := serveApp(t, Options{}, func(_ context.Context, e *socketio.Event) error {
		seen.Store(e)
		return nil
	})
	c := dialApp(t, url)
	c.call(`["join","x"]`)
	for range 20 {
		c.write(`42["history","x"]`)
		c.write(`42["members","x"]`)
	}
	c.call(`["join","x"]`) // handled after these
	if n := counted.reads.Load(); n != 0 {
		t.Errorf("got %d reads without an ack, want 0", n)
	}

	counted.held = make(chan struct{})
	for i := range 20 {
		c.write(fmt.Sprintf(`42%d["history","x"]`, 100+i))
	}
	<-counted.begun
	first := seen.Load()
	c.Close()
	eventually(t, "the socket ends", func() bool { return !first.CanAck() })
	close(counted.held)
	eventually(t, "its events are handled", func() bool { return srv.Of("/").Len() == 0 })
	if n := counted.reads.Load(); n != 1 {
		t.Errorf("%d reads for a closed connection, want the one that was under way", n)
	}
}

// A read that the node refuses is answered, and nothing is read.
func TestRefusedReads(t *testing.T) {
	tally := limit.NewTally(zap.NewNop())
	limits := limit.NewClients(limit.ClientOptions{ReadBytes: 1, Tally: tally})
	counted, _, url := serveApp(t, Options{Limits: limits})
	c := dialApp(t, url)
	c.call(`["join","x"]`)
	if r, _ := c.call(`["history","x"]`); !r.OK {
		t.Errorf("history: %+v", r)
	}
	for _, event := range []string{"history", "members"} {
		if r, _ := c.call(fmt.Sprintf(`[%q,"x"]`, event)); r.OK || r.Code != rateLimited {
			t.Errorf("%s: got %+v, want %s", event, r, rateLimited)
		}
	}
	if n := counted.reads.Load(); n != 1 {
		t.Errorf("got %d reads, want 1", n)
	}
	if n := tally.Refused()[limit.ReadRate]; n != 2 {
		t.Errorf("%d are counted, want 2", n)
	}
}

// A read of any socket of a user costs the bytes that it returns, and no more.
func TestReadsCostWhatTheyReturn(t *testing.T) {
	tally := limit.NewTally(zap.NewNop())
	limits := limit.NewClients(limit.ClientOptions{ReadBytes: 100_000, Tally: tally}) // a burst of a million
	_, _, url := serveApp(t, Options{Limits: limits})
	c := dialApp(t, url)
	c.call(`["join","x"]`)
	c.call(`["to","x","n","` + strings.Repeat("x", 200_000) + `"]`)
	c.call(`["join","y"]`)
	for range 200 {
		if r, _ := c.call(`["history","y"]`); !r.OK {
			t.Fatalf("an empty page: %+v", r)
		}
	}
	all := 0
	for tally.Refused()[limit.ReadRate] == 0 {
		d := dialApp(t, url)
		d.call(`["join","x"]`)
		if r, _ := d.call(`["history","x"]`); r.OK {
			all++
		}
	}
	if all < 4 || all > 7 {
		t.Errorf("got %d pages of 200 kB, want at least 4, at most 7", all)
	}
}

// Members are returned to clients that request a page, and to those that do not.
func TestMembersAreAnswered(t *testing.T) {
	_, _, url := serveApp(t, Options{})
	var c *rawClient
	for range 3 {
		c = dialApp(t, url)
		c.call(`["join","x"]`)
	}
	after := ""
	for i, args := range []string{``, `,{}`, `,null`, `,{"after":""}`, `,{"after":"%s"}`} {
		if strings.Contains(args, "%s") {
			args = fmt.Sprintf(args, after)
		}
		r, _ := c.call(`["members","x"` + args + `]`)
		want := 3
		if i == 4 {
			want = 2
		}
		if !r.OK || len(r.Members) != want || r.More || r.Partial || r.Count != 3 {
			t.Fatalf("%s: got %+v, want %d of 3 members", args, r, want)
		}
		after = r.Members[0].ID
	}
	for _, args := range []string{`,"a"`, `,{"after":1}`, `,{"after":"` + strings.Repeat("x", 201) + `"}`} {
		if r, _ := c.call(`["members","x"` + args + `]`); r.OK || r.Code != badRequest {
			t.Errorf("%.50s: got %+v, want %s", args, r, badRequest)
		}
	}
}

// The ack of a join or a leave is short even if the socket is in many rooms.
func TestManyRoomsAreNotListed(t *testing.T) {
	_, _, url := serveApp(t, Options{})
	c := dialApp(t, url)
	names := make([]string, listedRooms)
	for i := range names {
		names[i] = fmt.Sprintf(`"%d"`, i)
	}
	c.write(`421["join",["x",` + strings.Join(names, ",") + `]]`)
	if got := c.next(); got != fmt.Sprintf(`431[{"ok":true,"count":%d}]`, listedRooms+1) {
		t.Errorf("acked %.100s", got)
	}
	c.write(`421["leave","x"]`)
	if got := c.next(); !strings.HasPrefix(got, `431[{"ok":true,"rooms":["0",`) || strings.Contains(got, "count") {
		t.Errorf("with one less it is acked %.100s", got)
	}
}

// A list of members counts in the rate of reads, because other nodes are queried for it.
func TestMembersAreCharged(t *testing.T) {
	_, _, url := serveApp(t, Options{Limits: limit.NewClients(limit.ClientOptions{ReadBytes: questionBytes / 4})})
	c := dialApp(t, url)
	c.call(`["join","r"]`)
	for i, want := range []code{"", rateLimited} { // the query costs 4 seconds' worth
		if r, _ := c.call(`["members","r"]`); r.Code != want {
			t.Errorf("call %d: %+v", i, r)
		}
	}
}

// A history that cannot be decoded is refused with its own code.
func TestUndecodableHistory(t *testing.T) {
	node, _, url := serveApp(t, Options{})
	node.bad = fmt.Errorf("read: %w", adapter.ErrUndecodable)
	c := dialApp(t, url)
	c.call(`["join","r"]`)
	if r, _ := c.call(`["history","r"]`); r.OK || r.Code != unavailable || !strings.Contains(r.Message, "cannot decode") || r.MayHave {
		t.Errorf("got %+v, want %s with a message", r, unavailable)
	}
}

package socketio

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/session"
)

const tooManyRooms = `["socketio: too many rooms: at most 3"]`

// A client joins the maximum number of rooms, and a room that it leaves makes space for
// another, until it has left more than can be remembered.
func TestRoomsPerSocket(t *testing.T) {
	n := start(t, Options{RoomsPerSocket: 3})
	joining(n.Of("/"))
	w := n.client(t)
	call := func(event, room, want string) {
		t.Helper()
		if got := w.call(fmt.Sprintf("[%q,%q]", event, room)); got != want {
			t.Fatalf("%s %s: %s, want %s", event, room, got, want)
		}
	}
	for i := range 3 {
		call("join", fmt.Sprint(i), `["ok"]`)
	}
	call("join", "3", tooManyRooms)
	call("join", "2", `["ok"]`) // it is already a member
	for i := range 3*staysPerRoom - 3 {
		call("leave", fmt.Sprint(i%3), `["ok"]`)
		call("join", fmt.Sprint(i%3), `["ok"]`)
	}
	call("leave", "0", `["ok"]`)
	call("join", "0", `["socketio: too many rooms: too many were left within the last minutes"]`)
	if got := n.Stats().TooManyRooms; got != 2 {
		t.Errorf("%d are counted, want 2", got)
	}
}

// The limit applies to a recovered session, including the rooms that it has left.
func TestRoomsPerSocketAfterARecovery(t *testing.T) {
	n := start(t, Options{RoomsPerSocket: 3})
	joining(n.Of("/"))
	w := n.client(t)
	for _, call := range []string{`["join","0"]`, `["join","1"]`, `["leave","0"]`, `["join","2"]`} {
		w.call(call)
	}
	w.cut()
	w = n.back(t, w)
	if got := w.call(`["join","3"]`); got != `["ok"]` {
		t.Errorf("the third: %s, want %s", got, `["ok"]`)
	}
	if got := w.call(`["join","4"]`); got != tooManyRooms {
		t.Errorf("the fourth: %s, want %s", got, tooManyRooms)
	}
}

// The limit does not apply to commands of the application, because a refusal could not be
// reported.
func TestCommandsJoinBeyondTheLimit(t *testing.T) {
	n := start(t, Options{RoomsPerSocket: 3})
	joining(n.Of("/"))
	w := n.client(t)
	must(t, n.SocketsJoin(t.Context(), "a", "b", "c", "d", "e"))
	must(t, n.To("e").Emit(t.Context(), "n", 1))
	w.want(numbered(1))
	if got := w.call(`["join","f"]`); got != tooManyRooms {
		t.Errorf("the client's own: %s, want %s", got, tooManyRooms)
	}
}

// The memory of the memberships of all sockets is bounded. Beyond it sockets can join few
// rooms, sessions with many are recovered later, and ended memberships free memory.
func TestMembershipsAreBounded(t *testing.T) {
	n := start(t, Options{MembershipBudget: 30 * int(stayCost("00"))})
	joining(n.Of("/"))
	join := func(w *wire, want string, from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			if got := w.call(fmt.Sprintf(`["join","%02d"]`, i)); got != want {
				t.Fatalf("room %d: %s, want %s", i, got, want)
			}
		}
	}
	full := fmt.Sprintf("[%q]", errMemberships.Error())
	first, second := n.client(t), n.client(t)
	join(first, `["ok"]`, 0, 20)
	join(second, `["ok"]`, 0, 16)
	join(second, full, 16, 17)
	third := n.client(t)
	join(third, `["ok"]`, 0, 16)
	first.cut()
	eventually(t, "its memberships count no more", func() bool { return n.Stats().MembershipBytes == 32*int(stayCost("00")) })
	w := n.dial(t)
	w.write(fmt.Sprintf(`40{"pid":%q}`, first.pid))
	w.gone()
	third.write("41")
	eventually(t, "its memberships count no more", func() bool { return n.Stats().MembershipBytes == 16*int(stayCost("00")) })
	second.write("41")
	eventually(t, "nothing is held", func() bool { return n.Stats().MembershipBytes == 0 })
	n.back(t, first)
	if got := n.Stats().MembershipBytes; got != 20*int(stayCost("00")) {
		t.Errorf("the recovered socket takes %d", got)
	}
	if got := n.Stats().Limited[limitMemberships]; got != 2 {
		t.Errorf("%d are counted, want 2", got)
	}
}

// Sockets that join as many rooms as possible leave others more than the minimum, also after they
// have recovered them.
func TestMembershipsAreShared(t *testing.T) {
	unit := int(stayCost("0000"))
	n := start(t, Options{MembershipBudget: 4000 * unit, RoomsPerSocket: 4000})
	greedy := func(w *wire) (joined int) {
		const step = 10
		for s := n.Namespace.Socket(w.sid); ; joined += step {
			names := make([]string, step)
			for i := range names {
				names[i] = fmt.Sprintf("%04d", joined+i)
			}
			if err := s.Join(t.Context(), names...); err != nil {
				if !errors.Is(err, errMemberships) {
					t.Fatal(err)
				}
				return joined
			}
		}
	}
	first, second, third := n.client(t), n.client(t), n.client(t)
	if got, want := fmt.Sprint(greedy(first), greedy(second), greedy(third)), "3000 370 280"; got != want {
		t.Errorf("joined %s rooms, want %s", got, want)
	}
	first.cut()
	eventually(t, "its memberships count no more", func() bool { return n.Stats().MembershipBytes < 1000*unit })
	if got := greedy(n.client(t)); got < 2000 {
		t.Errorf("joined %d rooms of those that are free again, want at least 2000", got)
	}
	n.back(t, second)
	if got := greedy(n.client(t)); got < 2*roomsBeyondBudget {
		t.Errorf("joined %d rooms beside a recovered socket, want at least %d", got, 2*roomsBeyondBudget)
	}
	if got := n.Stats().MembershipBytes; got > 4500*unit {
		t.Errorf("all have %d memberships", got/unit)
	}
}

// A membership counts its positions in all partitions, also after a recovery.
func TestPartitionsCountInTheBudget(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{Partitions: 64})
	n := c.node(t, "a", Options{})
	joining(n.Of("/"))
	w := n.client(t)
	for i := range 3 {
		for _, event := range []string{"join", "leave"} {
			if got := w.call(fmt.Sprintf(`[%q,"%02d"]`, event, i)); got != `["ok"]` {
				t.Fatalf("%s %d: %s, want %s", event, i, got, `["ok"]`)
			}
		}
	}
	want := 3 * int(stayCost("00")+2*64*16)
	if got := n.Stats().MembershipBytes; got != want {
		t.Errorf("three memberships take %d bytes, want %d", got, want)
	}
	w.cut()
	eventually(t, "nothing is held", func() bool { return n.Stats().MembershipBytes == 0 })
	n.back(t, w).write("41")
	eventually(t, "nothing is held", func() bool { return n.Stats().MembershipBytes == 0 })
	second := n.client(t)
	for i := range 3 {
		if got := second.call(fmt.Sprintf(`["join","%02d"]`, i)); got != `["ok"]` {
			t.Fatalf("join %d: %s, want %s", i, got, `["ok"]`)
		}
	}
	second.cut()
	n.back(t, second)
	if got := n.Stats().MembershipBytes; got != want {
		t.Errorf("three recovered memberships take %d bytes, want %d", got, want)
	}
}

// The sockets of a connection beside its first count in the budget. Connections that have as many as
// possible do not prevent others from having a few.
func TestFurtherSocketsAreBounded(t *testing.T) {
	const most = 16
	n := start(t, Options{MembershipBudget: 4 * most * socketCost, NamespacesPerConnection: most})
	for i := range most {
		n.Of(fmt.Sprint("/", i))
	}
	greedy := func() (w *wire, sockets int) {
		w = n.dial(t)
		for ; sockets < most; sockets++ {
			w.ns = fmt.Sprint("/", sockets)
			w.write("40" + w.prefix())
			got := w.next()
			if got == "44"+w.prefix()+`{"message":"Too many namespaces: sockets of all clients take too much memory","data":{"code":"too_many"}}` {
				break
			}
			if !strings.HasPrefix(got, "40"+w.prefix()) {
				t.Fatalf("CONNECT was answered %q", got)
			}
		}
		return w, sockets
	}
	var all []*wire
	var had []int
	for range 6 {
		w, sockets := greedy()
		all, had = append(all, w), append(had, sockets)
	}
	if fmt.Sprint(had[:3]) != "[16 16 16]" || slices.Min(had) < socketsBeyondBudget || had[5] > most/2 {
		t.Errorf("connections have %v sockets", had)
	}
	if got := n.Stats().Limited[limitMemberships]; got == 0 {
		t.Error("the limit is not counted")
	}
	bytes := n.Stats().MembershipBytes
	all[0].write("41/1,")
	eventually(t, "a socket that has left counts no more", func() bool { return n.Stats().MembershipBytes == bytes-socketCost })
	for _, w := range all {
		w.cut()
	}
	eventually(t, "nothing is counted", func() bool { return n.Stats().MembershipBytes == 0 })
}

// Beyond the budget the sockets of a connection have one allowance together.
func TestSocketsShareTheAllowance(t *testing.T) {
	n := start(t, Options{MembershipBudget: 1})
	w := n.client(t)
	joined, names := 0, []string{"/", "/a", "/b", "/c"}
	for _, name := range names {
		joining(n.Of(name))
		if name != "/" {
			w.connect(name, "")
		}
	}
	for i := range roomsBeyondBudget {
		for _, w.ns = range names {
			if strings.HasPrefix(w.call(fmt.Sprintf(`["join","%024d"]`, i)), `["ok"]`) {
				joined++
			}
		}
	}
	if joined != bytesBeyondBudget/int(stayCost(fmt.Sprintf("%024d", 0))) {
		t.Errorf("joined %d rooms", joined)
	}
	w.cut()
	eventually(t, "nothing is counted", func() bool { return n.Stats().MembershipBytes == 0 })
}

// The memberships that are always allowed are few if their names are long.
func TestLongNamesBeyondTheBudget(t *testing.T) {
	n := start(t, Options{MembershipBudget: 1})
	joining(n.Of("/"))
	w := n.client(t)
	joined := 0
	for w.call(fmt.Sprintf(`["join","%0200d"]`, joined)) == `["ok"]` {
		joined++
	}
	if joined != 4 {
		t.Errorf("joined %d rooms with names of 200 bytes, want 4", joined)
	}
}

// Rooms that were left also count within the recovery window, so that joins and leaves
// cannot evade the budget.
func TestLeftRoomsCountInTheBudget(t *testing.T) {
	n := start(t, Options{MembershipBudget: 10 * int(stayCost("00"))})
	joining(n.Of("/"))
	w := n.client(t)
	for i := range roomsBeyondBudget {
		for _, event := range []string{"join", "leave"} {
			if got := w.call(fmt.Sprintf(`[%q,"%02d"]`, event, i)); got != `["ok"]` {
				t.Fatalf("%s %d: %s, want %s", event, i, got, `["ok"]`)
			}
		}
	}
	if got, full := w.call(`["join","16"]`), fmt.Sprintf("[%q]", errMemberships.Error()); got != full {
		t.Errorf("one more: %s, want %s", got, full)
	}
}

// Stays that ended before the recovery window do not count, even if they are few.
func TestForgottenRoomsDoNotCountInTheBudget(t *testing.T) {
	n := start(t, Options{MembershipBudget: 10 * int(stayCost("00"))})
	s := n.Socket(n.client(t).sid)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range roomsBeyondBudget {
		s.rooms.enter(fmt.Sprintf("%02d", i))
		s.rooms.confirm(fmt.Sprintf("%02d", i), adapter.Cursor{})
	}
	s.charge()
	if err := s.tooMany([]string{"16"}); !errors.Is(err, errMemberships) {
		t.Fatalf("beyond the budget: %v, want errMemberships", err)
	}
	s.rooms.leave("00", adapter.Cursor{}) // in 1970
	if err := s.tooMany([]string{"16"}); err != nil {
		t.Errorf("with a stay that ended long ago: %v", err)
	}
}

// Joins do not use the whole budget: a client that was cut finds space for its session.
func TestRecoveriesHaveBudgetLeft(t *testing.T) {
	n := start(t, Options{MembershipBudget: 40 * int(stayCost("00"))})
	joining(n.Of("/"))
	join := func(w *wire, rooms int) {
		t.Helper()
		for i := range rooms {
			if got := w.call(fmt.Sprintf(`["join","%02d"]`, i)); got != `["ok"]` {
				t.Fatalf("room %d: %s, want %s", i, got, `["ok"]`)
			}
		}
	}
	cut, other, small := n.client(t), n.client(t), n.client(t)
	join(cut, 20)
	join(small, roomsBeyondBudget)
	cut.cut()
	small.cut()
	eventually(t, "their memberships count no more", func() bool { return n.Stats().MembershipBytes == 0 })
	join(other, 25)
	n.back(t, cut)
	if got := n.Stats().MembershipBytes; got != 45*int(stayCost("00")) {
		t.Errorf("the memberships take %d", got)
	}
	n.back(t, small) // in spite of the others
}

// The cost of memberships does not overflow, even for many memberships of a socket.
func TestMembershipCostDoesNotOverflow(t *testing.T) {
	m := memberships{uncharged: math.MaxInt32}
	m.enter("a")
	if m.uncharged < math.MaxInt32 {
		t.Errorf("it costs %d, want at least %d", m.uncharged, math.MaxInt32)
	}
}

// One namespace too many is refused with a message, and the connection continues.
func TestNamespacesPerConnection(t *testing.T) {
	n := start(t, Options{NamespacesPerConnection: 2})
	for _, name := range []string{"/", "/a", "/b"} {
		joining(n.Of(name))
	}
	w := n.client(t)
	w.connect("/a", "")
	w.write("40/b,")
	if got, want := w.next(), `44/b,{"message":"Too many namespaces: at most 2 on one connection","data":{"code":"too_many"}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if n.Stats().TooManyNamespaces != 1 {
		t.Error("it is not counted")
	}
	w.quiet()
	w.write("41/a,")
	w.connect("/b", "")
	if !strings.HasPrefix(w.call(`["join","x"]`), `["ok"]`) {
		t.Error("there is no place though one was given up")
	}
}

// Events that wait for their handlers are bounded in bytes, too: the connection
// is not read meanwhile. All of them are handled, in order.
func TestWaitingEventsAreBounded(t *testing.T) {
	const events, size = 20, 1000
	o := Options{}
	o.MailboxBytes = 3 * size
	n := start(t, o)
	begin, handled := make(chan struct{}), make(chan int, events)
	n.Of("/").On("e", func(_ context.Context, e *Event) error {
		<-begin
		handled <- e.Size()
		return nil
	})
	letGo := sync.OnceFunc(func() { close(begin) })
	t.Cleanup(letGo)
	w := n.client(t)
	for range events {
		w.write(`42["e","` + strings.Repeat("x", size) + `"]`)
	}
	s := n.Socket(w.sid)
	eventually(t, "a full mailbox", func() bool {
		s.mail.mu.Lock()
		defer s.mail.mu.Unlock()
		return s.mail.full != nil
	})
	if got := n.Stats().EventsIn; got > 5 { // one is handled, three wait, one is in flight
		t.Errorf("%d events were taken in, want at most 5", got)
	}
	letGo()
	for range events {
		select {
		case got := <-handled:
			if got != size+len(`["e",""]`) {
				t.Errorf("its size is %d, want %d", got, size+len(`["e",""]`))
			}
		case <-time.After(patience):
			t.Fatal("an event is not handled")
		}
	}
}

// A CONNECT payload is bounded, and the connection stays.
func TestConnectPayloadIsBounded(t *testing.T) {
	n := start(t, Options{})
	n.Of("/")
	w := n.dial(t)
	payload := func(size int) string { return `{"x":"` + strings.Repeat("x", size-8) + `"}` }
	for range 2 {
		w.write("40" + payload(maxConnectPayload+1))
		if got, want := w.next(), `44{"message":"CONNECT payload too large: at most 65536 bytes","data":{"code":"too_large"}}`; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got := n.Stats().Limited[limitConnectPayload]; got != 2 {
		t.Errorf("%d are counted, want 2", got)
	}
	w.connect("/", payload(maxConnectPayload))
}

func (w *wire) writeBinary(data []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.ws.WriteMessage(websocket.BinaryMessage, data)
}

// gone fails if the connection is not closed in time.
func (w *wire) gone() {
	w.t.Helper()
	select {
	case <-w.closed:
	case <-time.After(patience):
		w.t.Error("the connection is open")
	}
}

// Connections that never connect to a namespace, or are refused there, are bounded in
// number: one more closes the oldest. Those with a socket are not affected.
func TestUnconnectedSessionsAreBounded(t *testing.T) {
	n := start(t, Options{UnconnectedSessions: 2, Engine: engineio.Options{PingInterval: time.Minute}})
	n.Use(func(_ context.Context, r *ConnectRequest) error {
		var auth struct{ Bad bool }
		if _ = r.Auth(&auth); auth.Bad {
			return errors.New("bad")
		}
		return nil
	})
	n.On("hello", func(_ context.Context, e *Event) error { return e.Ack() })
	connected, left := n.client(t), n.client(t)
	left.write("41")
	left.write("40") // the second connect comes behind the disconnect
	left.next()
	left.write("41") // it has had a socket
	refused := n.dial(t)
	refused.write(`40{"bad":true}`)
	if got := refused.next(); got != `44{"message":"bad"}` {
		t.Errorf("got %s, want %s", got, `44{"message":"bad"}`)
	}
	n.unconnectedAre(t, 1)
	silent := n.dial(t)
	n.unconnectedAre(t, 2)
	newest := n.dial(t)
	refused.gone()
	if got := n.Stats().Limited[limitUnconnected]; got != 1 {
		t.Errorf("%d are counted, want 1", got)
	}
	response, err := http.Get("http" + strings.TrimPrefix(n.url, "ws") + "/socket.io/?EIO=4&transport=polling")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	silent.gone()
	newest.connect("/", "")
	connected.call(`["hello"]`)
	left.connect("/", "")
	last := n.dial(t) // closes no other connection: only the polling one is in the list
	last.connect("/", "")
	if got := n.Stats().Limited[limitUnconnected]; got != 2 {
		t.Errorf("%d are counted, want 2", got)
	}
	n.dial(t)
	n.dial(t)
	eventually(t, "the polling session is closed", func() bool { return n.Stats().Engine.Polling == 0 })
	eventually(t, "nothing is kept of the polling session", func() bool { return n.clientCount() == 6 })
}

// unconnectedAre waits until a number of connections have no namespace.
func (n *testNode) unconnectedAre(t *testing.T, want int) {
	t.Helper()
	eventually(t, "unconnected", func() bool {
		u := &n.Server.unconnected
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.order.Len() == want
	})
}

func (n *testNode) clientCount() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.clients)
}

// Packets that wait for attachments are bounded together: the connection that holds the
// most is closed.
func TestPendingAttachmentsAreBounded(t *testing.T) {
	n := start(t, Options{ReceiveBudget: 105 << 10})
	n.On("upload", func(_ context.Context, e *Event) error { return e.Ack(e.Args.Attachments()) })
	begin := func(size int) *wire {
		w := n.client(t)
		w.write(`453-7["upload",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1},{"_placeholder":true,"num":2}]`)
		w.writeBinary(make([]byte, size))
		eventually(t, "it is held", func() bool { return n.heldBy(size) })
		return w
	}
	small, middle := begin(1000), begin(40<<10)
	large := begin(50 << 10)
	middle.writeBinary(make([]byte, 5<<10))
	eventually(t, "the second is held", func() bool { return n.heldBy(45 << 10) })
	middle.writeBinary(make([]byte, 5<<10)) // completes it, and it no longer counts
	if got := middle.next(); got != "437[3]" {
		t.Errorf("got %s, want 437[3]", got)
	}
	another := begin(40 << 10)
	another.writeBinary(make([]byte, 20<<10)) // more than the other
	another.gone()
	n.received.mu.Lock()
	for c, held := range n.received.clients {
		held.since = held.since.Add(-2 * receivedPatience)
		n.received.clients[c] = held
	}
	n.received.mu.Unlock()
	fresh := begin(70 << 10) // larger, but has not waited long yet
	large.gone()
	for _, w := range []*wire{small, fresh} {
		w.writeBinary(nil)
		w.writeBinary(nil)
		if got := w.next(); got != "437[3]" {
			t.Errorf("got %s, want 437[3]", got)
		}
	}
	if got := n.Stats().Limited[limitReceiveBudget]; got != 2 {
		t.Errorf("%d are counted, want 2", got)
	}
	eventually(t, "nothing is held", func() bool {
		n.received.mu.Lock()
		defer n.received.mu.Unlock()
		return n.received.total.Load() == 0 && len(n.received.clients) == 0
	})
}

// heldBy reports whether a connection holds about that many bytes.
func (n *testNode) heldBy(size int) bool {
	n.received.mu.Lock()
	defer n.received.mu.Unlock()
	for _, held := range n.received.clients {
		if held.reader >= size && held.reader < size+200 {
			return true
		}
	}
	return false
}

// A client that sends many arguments, each of which takes far more memory than its bytes,
// is disconnected, for an event and for an ack.
func TestArgumentsAreBounded(t *testing.T) {
	n := start(t, Options{})
	n.On("count", func(_ context.Context, e *Event) error { return e.Ack(e.Args.Len()) })
	many := strings.Repeat(",1", packet.MaxElements-1)
	w := n.client(t)
	w.write(`421["count"` + many + `]`)
	if got := w.next(); got != fmt.Sprintf("431[%d]", packet.MaxElements-1) {
		t.Errorf("got %s", got)
	}
	for _, text := range []string{`421["count",1` + many + `]`, `431[1,1` + many + `]`} {
		w := n.client(t)
		w.write(text)
		w.gone()
	}
	if got := n.Stats().Limited[limitArguments]; got != 2 {
		t.Errorf("%d are counted, want 2", got)
	}
	if err := n.Of("/").Emit(t.Context(), "x", make([]any, packet.MaxElements)...); err == nil {
		t.Error("an event with too many arguments is sent")
	}
}

// The server does not wait for a missing attachment for as long as the client answers
// pings.
func TestAttachmentsHaveADeadline(t *testing.T) {
	n := start(t, Options{Engine: engineio.Options{PingInterval: 200 * time.Millisecond, PingTimeout: 400 * time.Millisecond}})
	n.Of("/")
	for i, size := range []int{8 << 10, 0} {
		w := n.client(t)
		w.write(`452-["upload",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`)
		w.writeBinary(make([]byte, size))
		w.gone()
		if got := n.Stats().Limited[limitAttachmentDeadline]; got != uint64(i)+1 {
			t.Errorf("%d are counted, want %d", got, uint64(i)+1)
		}
	}
}

// A slowlyClaimed store answers claims when the expected number of them have been checked.
type slowlyClaimed struct {
	session.Store
	checked sync.WaitGroup
}

func (s *slowlyClaimed) Claim(ctx context.Context, pid, by string, ttl time.Duration, check func(session.Session) error) (session.Session, string, error) {
	return s.Store.Claim(ctx, pid, by, ttl, func(found session.Session) error {
		err := check(found)
		s.checked.Done()
		s.checked.Wait()
		return err
	})
}

// Concurrent recoveries do not all find space for their memberships before one of them is
// counted, and refused ones leave nothing behind.
func TestConcurrentRecoveriesKeepToTheBudget(t *testing.T) {
	store := &slowlyClaimed{Store: session.NewMemory()}
	n := start(t, Options{MembershipBudget: 40 * int(stayCost("00")), Sessions: store})
	joining(n.Of("/"))
	const clients, each = 6, 20
	var payloads []string
	for range clients {
		c := n.client(t)
		for i := range each {
			if got := c.call(fmt.Sprintf(`["join","%02d"]`, i)); got != `["ok"]` {
				t.Fatalf("room %d: %s, want %s", i, got, `["ok"]`)
			}
		}
		payloads = append(payloads, fmt.Sprintf(`40{"pid":%q}`, c.pid))
		c.cut()
		eventually(t, "its memberships count no more", func() bool { return n.Stats().MembershipBytes == 0 })
	}
	store.checked.Add(clients)
	var all []*wire
	for _, payload := range payloads {
		w := n.dial(t)
		w.write(payload)
		all = append(all, w)
	}
	eventually(t, "all are recovered or refused", func() bool {
		stats := n.Stats()
		return stats.Recoveries[recoveredWell]+stats.Limited[limitMemberships] == clients
	})
	if got := n.Stats().MembershipBytes; got != 2*each*int(stayCost("00")) {
		t.Errorf("the memberships take %d bytes", got)
	}
	for _, w := range all {
		w.cut()
	}
	eventually(t, "nothing is held", func() bool { return n.Stats().MembershipBytes == 0 })
}

// Errors do not repeat long names of clients, with escapes that take several bytes each.
func TestLongNamesAreNotRepeated(t *testing.T) {
	name := strings.Repeat("\x7f", 100_000)
	n := start(t, Options{})
	told := make(chan error, 10)
	n.OnConnect(func(s *Socket) { s.OnError(func(err error) { told <- err }) })
	n.OnAny(func(context.Context, *Event) error { return errors.New("refused") })
	w := n.client(t)
	for _, text := range []string{`42["` + name + `"]`, `42/` + name + `,["e"]`} {
		w.write(text)
		if err := receive(t, told); len(err.Error()) > 1000 {
			t.Errorf("%.20q: the error has %d bytes, want at most 1000", text, len(err.Error()))
		}
	}
}

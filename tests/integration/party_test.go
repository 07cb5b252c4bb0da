package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"regexp"
	"slices"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/session"
	"github.com/rejoin-io/rejoin/pkg/socketio"
	"github.com/rejoin-io/rejoin/tests/inbox"
)

// The five clients of the document: on which of the two nodes, in which rooms.
var guests = []struct {
	name, node string
	rooms      []string
}{
	{"me", "a", []string{"r1"}},
	{"ann", "a", []string{"r1", "r2"}},
	{"zoe", "a", []string{}},
	{"bob", "b", []string{"r1", "r3"}},
	{"eve", "b", []string{"r3", "r4"}},
}

// A party is the five clients on two nodes of one cluster. Each node is reached
// through a relay, so that its clients can be cut off.
type party struct {
	*testing.T
	row      sheetRow
	a, b     *sheetNode
	clients  map[string]*npmSocket
	sockets  map[string]*socketio.Socket // the server's side of the clients
	arrivals inbox.Inbox[arrival]
	entries  inbox.Inbox[socketio.RoomEvent]
}

// An arrival is a client that connected or reconnected.
type arrival struct {
	name   string
	socket *socketio.Socket
}

type sheetNode struct {
	*socketio.Server
	*relay
	rooms *socketio.Parent // the dynamic namespaces /room-…
}

func newParty(t *testing.T, row sheetRow) *party {
	p := &party{T: t, row: row, clients: map[string]*npmSocket{}, sockets: map[string]*socketio.Socket{}}
	cluster, sessions := adapter.NewMemory(adapter.MemoryOptions{}), session.NewMemory()
	p.a, p.b = p.start(cluster, sessions, "a"), p.start(cluster, sessions, "b")
	d := startDriver(t)
	for _, g := range guests {
		n := p.a
		if g.node == "b" {
			n = p.b
		}
		p.clients[g.name] = d.open(g.name, newest, n.url(), map[string]any{
			"transports": []string{"websocket"},
			"auth":       map[string]any{"name": g.name, "rooms": g.rooms},
		})
		p.arrives(g.name)
	}
	p.end()
	p.everybody("end")
	return p
}

func (p *party) start(cluster *adapter.Memory, sessions session.Store, name adapter.NodeID) *sheetNode {
	p.Helper()
	link, err := cluster.Node(name)
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() {
		if err := link.Close(); err != nil {
			p.Error(err)
		}
	})
	n := &sheetNode{}
	n.Server, n.relay = serveSheet(p.T, socketio.Options{Adapter: link, Sessions: sessions})
	n.rooms = n.OfPattern(regexp.MustCompile(`^/room-\d+$`))
	n.Of("/chat")
	n.Use(p.note)
	n.OnConnect(p.welcome)
	n.OnRoom(p.entries.Put)
	return n
}

// serveSheet runs a server of the library, and a relay before it.
func serveSheet(t *testing.T, o socketio.Options) (*socketio.Server, *relay) {
	t.Helper()
	srv, err := socketio.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(srv)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := srv.Close(ctx); err != nil {
			t.Error(err)
		}
		front.Close()
	})
	return srv, startRelay(t, &node{addr: front.Listener.Addr().String()})
}

// A guest is a client's auth payload.
type guest struct {
	Name  string
	Rooms []string
}

type guestKey struct{}

// note keeps a client's auth payload for welcome.
func (p *party) note(_ context.Context, r *socketio.ConnectRequest) error {
	var g guest
	err := r.Auth(&g)
	r.SetValue(guestKey{}, g)
	return err
}

// welcome puts a new client into the rooms that it asks for.
func (p *party) welcome(s *socketio.Socket) {
	g := s.Value(guestKey{}).(guest)
	var err error
	if !s.Recovered() {
		err = s.Join(s.Context(), g.Rooms...)
	}
	if err != nil {
		p.Errorf("%s: %v", g.Name, err)
	}
	p.arrivals.Put(arrival{g.Name, s})
}

// arrives waits until the server has welcomed a client.
func (p *party) arrives(name string) {
	p.Helper()
	a, err := p.arrivals.Take(patience, func(a arrival) bool { return a.name == name })
	if err != nil {
		p.Fatalf("%s does not arrive: %v", name, err)
	}
	p.sockets[name] = a.socket
}

// joins waits until a client is in a room.
func (p *party) joins(name, room string) {
	p.Helper()
	want := socketio.RoomEvent{Kind: socketio.RoomJoined, Room: room, SocketID: p.id(name)}
	if _, err := p.entries.Take(patience, func(e socketio.RoomEvent) bool { return e == want }); err != nil {
		p.Fatalf("%s does not join %s: %v", name, room, err)
	}
}

func (p *party) id(name string) string { return p.sockets[name].ID() }

// end sends all clients an event that ends a part of the test: earlier events
// have arrived, or never will.
func (p *party) end() {
	p.Helper()
	if err := p.a.Emit(p.Context(), "end"); err != nil {
		p.Fatal(err)
	}
}

// everybody checks that all clients get an event next.
func (p *party) everybody(event string, args ...string) {
	p.Helper()
	for _, g := range guests {
		p.clients[g.name].hears(event, args...)
	}
}

// those get an event next if heard is set; then all get the end.
func (p *party) those(heard bool, names []string, event string, args ...string) {
	p.Helper()
	if heard {
		for _, name := range names {
			p.clients[name].hears(event, args...)
		}
	}
	p.everybody("end")
}

// idle waits until nothing is queued, for volatile events don't.
func (p *party) idle() {
	p.Helper()
	eventually(p.T, "the nodes are not idle", func() error {
		if n := p.a.Stats().Engine.QueuedBytes + p.b.Stats().Engine.QueuedBytes; n > 0 {
			return fmt.Errorf("%d bytes are queued", n)
		}
		return nil
	})
}

func (p *party) deafen() {
	p.a.deafen()
	p.b.deafen()
}

// cut cuts all connections and waits until all clients have reconnected.
func (p *party) cut() {
	p.Helper()
	p.leave()
	p.comeBack()
}

// leave disconnects all clients until comeBack, and the nodes have noticed it.
func (p *party) leave() {
	p.Helper()
	p.a.down()
	p.b.down()
	for _, g := range guests {
		p.clients[g.name].await("disconnect")
	}
	eventually(p.T, "the nodes have not noticed", func() error {
		if n := p.a.Stats().Sockets + p.b.Stats().Sockets; n > 0 {
			return fmt.Errorf("%d sockets", n)
		}
		return nil
	})
}

func (p *party) comeBack() {
	p.Helper()
	p.a.up()
	p.b.up()
	for _, g := range guests {
		if !p.clients[g.name].await("connect").Recovered {
			p.Errorf("%s has not recovered", g.name)
		}
		p.arrives(g.name)
	}
}

// emits tests a row: exactly the clients that the document names get the event.
// It repeats this while no packet reaches the clients, until they are cut and
// reconnect: they get the event if the document marks it as recovered.
func (p *party) emits(event string, emit func(ctx context.Context, srv *socketio.Server, s *socketio.Socket) error) {
	p.Helper()
	p.idle()
	if err := emit(p.Context(), p.a.Server, p.sockets["me"]); err != nil {
		p.Fatal(err)
	}
	p.end()
	p.those(true, p.row.who, event, "1")

	p.deafen()
	if err := emit(p.Context(), p.a.Server, p.sockets["me"]); err != nil {
		p.Fatal(err)
	}
	p.end()
	p.cut()
	p.those(p.row.recovered, p.row.who, event, "1")
}

// asks is emits for a row that asks several clients: those that the document
// names answer, and where nothing gets through they are named in the error.
func (p *party) asks(ask func(ctx context.Context, srv *socketio.Server, s *socketio.Socket) (*socketio.Answers, error)) {
	p.Helper()
	var ids, answered []string
	for _, name := range p.row.who {
		ids = append(ids, p.id(name))
	}
	slices.Sort(ids)
	answers, err := ask(p.Context(), p.a.Server, p.sockets["me"])
	if err != nil {
		p.Fatal(err)
	}
	for answer, err := range answers.All() {
		if err != nil {
			p.Fatal(err)
		}
		if got := string(answer.Raw(0)); got != "1" {
			p.Errorf("%s answers %s", answer.SocketID, got)
		}
		answered = append(answered, answer.SocketID)
	}
	if slices.Sort(answered); !slices.Equal(answered, ids) {
		p.Errorf("%q answered, want %q", answered, ids)
	}
	p.end()
	p.those(true, p.row.who, "news", "1")

	p.deafen()
	if answers, err = ask(p.Context(), p.a.Server, p.sockets["me"]); err != nil {
		p.Fatal(err)
	}
	for answer, err := range answers.All() {
		silent := (*socketio.UnansweredError)(nil)
		if !errors.As(err, &silent) || !slices.Equal(silent.Sockets, ids) || !errors.Is(err, context.DeadlineExceeded) {
			p.Errorf("got %s, %v, want that %q are silent", answer.SocketID, err, ids)
		}
	}
	p.end()
	p.cut()
	p.those(p.row.recovered, p.row.who, "news", "1")
}

// asksMe is asks for a row with one client, which is cut while the server
// waits, unless the server times out before.
func (p *party) asksMe(want error, ask func(ctx context.Context, s *socketio.Socket) (socketio.Args, error)) {
	p.Helper()
	answer, err := ask(p.Context(), p.sockets["me"])
	if err != nil || string(answer.Raw(0)) != "1" {
		p.Fatalf("got %s, %v", answer.Raw(0), err)
	}
	p.end()
	p.those(true, p.row.who, "news", "1")

	p.deafen()
	before := p.a.Stats().Deliveries
	ended := make(chan error, 1)
	go func() { // ends with the question, which the cut ends at the latest
		_, err := ask(p.Context(), p.sockets["me"])
		ended <- err
	}()
	if want == context.DeadlineExceeded {
		err = <-ended
	} else {
		eventually(p.T, "nobody is asked", func() error {
			if p.a.Stats().Deliveries == before {
				return errors.New("nothing is delivered")
			}
			return nil
		})
	}
	p.end()
	p.cut()
	if want != context.DeadlineExceeded {
		err = <-ended
	}
	if !errors.Is(err, want) {
		p.Errorf("got %v, want %v", err, want)
	}
	p.those(p.row.recovered, p.row.who, "news", "1")
}

// elsewhere plays a row in the namespace /chat.
func (p *party) elsewhere(emit func(ctx context.Context, srv *socketio.Server) error) {
	p.Helper()
	chat := p.clients["bob"].join("bob in /chat", "/chat", nil)
	chat.await("connect")
	if err := emit(p.Context(), p.a.Server); err != nil {
		p.Fatal(err)
	}
	p.end()
	chat.hears("news", "1")
	p.everybody("end")
}

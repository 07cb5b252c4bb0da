package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"

	"github.com/rejoin-io/rejoin/internal/api"
	"github.com/rejoin-io/rejoin/internal/api/idempotency"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// clusterRows are the rows 27 to 34: events between servers, operations on sockets
// of other nodes, and events from other processes.
var clusterRows = map[int]func(*party){
	27: func(p *party) {
		srv, got := p.a.Server, make(chan string, 2)
		for name, srv := range map[string]*sheetNode{"a": p.a, "b": p.b} {
			h := func(_ context.Context, e *socketio.Event) error {
				got <- name + " " + string(e.Raw(0))
				return nil
			}
			srv.OnServerSide("news", h)
		}
		ctx := p.Context()
		if err := srv.ServerSideEmit(ctx, "news", 1); err != nil {
			p.Fatal(err)
		}
		if heard := <-got; heard != "b 1" {
			p.Errorf("heard by %s", heard)
		}
		p.end()
		p.everybody("end")
		if len(got) > 0 {
			p.Errorf("heard by %s too", <-got)
		}
	},
	28: func(p *party) {
		for name, srv := range map[string]*sheetNode{"a": p.a, "b": p.b} {
			h := func(_ context.Context, e *socketio.Event) error {
				return e.Ack(name)
			}
			srv.OnServerSide("news", h)
		}
		var heard []string
		srv, ctx := p.a.Server, p.Context()
		answers, err := srv.ServerSideEmitWithAck(ctx, "news", 1)
		if err != nil {
			p.Fatal(err)
		}
		for answer, err := range answers.All() {
			heard = append(heard, fmt.Sprintf("%s: %s, %v", answer.Node, answer.Raw(0), err))
		}
		if want := []string{`b: "b", <nil>`}; !slices.Equal(heard, want) {
			p.Errorf("got %q, want %q", heard, want)
		}
	},
	29: func(p *party) {
		srv, ctx := p.a.Server, p.Context()
		members, err := srv.In("r1").FetchSockets(ctx)
		if err != nil {
			p.Fatal(err)
		}
		var got, want []string
		for _, m := range members {
			got = append(got, fmt.Sprint(m.Node, m.ID, m.Rooms))
		}
		for _, g := range guests {
			if slices.Contains(p.row.who, g.name) {
				want = append(want, fmt.Sprint(g.node, p.id(g.name), g.rooms))
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			p.Errorf("got %q, want %q", got, want)
		}
	},
	30: func(p *party) {
		srv, ctx := p.a.Server, p.Context()
		if err := srv.In("r1").SocketsJoin(ctx, "r5"); err != nil {
			p.Fatal(err)
		}
		if err := srv.To("r5").Emit(ctx, "in r5"); err != nil {
			p.Fatal(err)
		}
		p.end()
		p.those(true, p.row.who, "in r5")
		if err := srv.In("r1").SocketsLeave(ctx, "r5"); err != nil {
			p.Fatal(err)
		}
		if err := srv.To("r5").Emit(ctx, "not heard"); err != nil {
			p.Fatal(err)
		}
		p.end()
		p.those(false, nil, "")

		p.leave()
		if err := srv.In("r1").SocketsJoin(ctx, "r5"); err != nil {
			p.Fatal(err)
		}
		if err := srv.To("r5").Emit(ctx, "in r5"); err != nil {
			p.Fatal(err)
		}
		p.end()
		p.comeBack()
		p.those(p.row.recovered, p.row.who, "in r5")
	},
	31: func(p *party) {
		srv, ctx := p.a.Server, p.Context()
		p.a.down()
		for _, name := range []string{"me", "ann", "zoe"} {
			p.clients[name].await("disconnect")
		}
		if err := srv.In("r1").DisconnectSockets(ctx, true); err != nil {
			p.Fatal(err)
		}
		if r := p.clients["bob"].await("disconnect"); r.Reason != "io server disconnect" {
			p.Errorf("bob is disconnected by %q", r.Reason)
		}
		p.a.up()
		for _, name := range []string{"me", "ann", "zoe"} {
			removed := slices.Contains(p.row.who, name)
			if recovered := p.clients[name].await("connect").Recovered; recovered == removed {
				p.Errorf("%s: recovered %v", name, recovered)
			}
		}
	},
	32: func(p *party) {
		first := p.clients["me"].join("me in 1", "/room-1", nil)
		second := p.clients["bob"].join("bob in 1", "/room-1", nil)
		third := p.clients["bob"].join("bob in 2", "/room-2", nil)
		for _, s := range []*npmSocket{first, second, third} {
			s.await("connect")
		}
		emit := func() {
			p.Helper()
			parent, ctx := p.a.rooms, p.Context()
			if err := parent.Emit(ctx, "news", 1); err != nil {
				p.Fatal(err)
			}
			// Of on the other node would make this namespace live there as well.
			if err := p.b.Of("/room-2").Emit(ctx, "end"); err != nil {
				p.Fatal(err)
			}
			p.end()
		}
		heard := func() {
			p.Helper()
			first.hears("news", "1")
			second.hears("news", "1")
			third.hears("end") // its namespace has no socket on the emitting node
			p.everybody("end")
		}
		emit()
		heard()
		p.deafen()
		emit()
		p.cut()
		for _, s := range []*npmSocket{first, second, third} {
			if r := s.await("connect"); r.Recovered != p.row.recovered {
				p.Errorf("%s: recovered %v", s.name, r.Recovered)
			}
		}
		heard()
	},
	33: func(p *party) {
		ctx := p.Context()
		members, err := p.a.In("r3").Except("r4").FetchSockets(ctx)
		if err != nil || len(members) != 1 || members[0].Node != "b" {
			p.Fatalf("got %v, %v", members, err)
		}
		remote := members[0]
		p.emits("news", func(ctx context.Context, _ server, _ socket) error {
			return remote.Emit(ctx, "news", 1)
		})

		answer, err := remote.EmitWithAck(ctx, "news", 1)
		if err != nil || string(answer.Raw(0)) != "1" {
			p.Errorf("got %s, %v", answer.Raw(0), err)
		}
		p.end()
		p.those(true, p.row.who, "news", "1")

		if err := remote.Join(ctx, "r5"); err != nil {
			p.Fatal(err)
		}
		p.joins("bob", "r5")
		p.emits("in r5", func(ctx context.Context, srv server, _ socket) error {
			return srv.To("r5").Emit(ctx, "in r5", 1)
		})
		if err := remote.Leave(ctx, "r5"); err != nil {
			p.Fatal(err)
		}
		if err := p.a.To("r5").Emit(ctx, "not heard"); err != nil {
			p.Fatal(err)
		}
		p.end()
		p.everybody("end")

		if err := remote.Disconnect(ctx, true); err != nil {
			p.Fatal(err)
		}
		if r := p.clients["bob"].await("disconnect"); r.Reason != "io server disconnect" {
			p.Errorf("disconnected by %q", r.Reason)
		}
	},
	34: func(p *party) {
		backends := httptest.NewServer(api.New(api.Options{
			Keys: []string{apiKey}, Calls: idempotency.NewMemory(idempotency.MemoryOptions{}),
			Namespaces: map[string]*socketio.Namespace{"/": p.b.Of("/")},
		}))
		defer backends.Close()
		p.emits("news", func(ctx context.Context, _ server, _ socket) error {
			const what, body = `POST /api/v1/emit`, `{"rooms":["r1"],"event":"news","args":[1]}`
			method, path, _ := strings.Cut(what, " ")
			request, err := http.NewRequestWithContext(ctx, method, backends.URL+path, strings.NewReader(body))
			if err != nil {
				return err
			}
			request.Header.Set("Authorization", "Bearer "+apiKey)
			request.Header.Set("Content-Type", "application/json")
			response, err := internalHTTP.Do(request)
			if err != nil {
				return err
			}
			defer response.Body.Close()
			if response.StatusCode != http.StatusOK {
				return errors.New(response.Status)
			}
			return nil
		})
	},
}

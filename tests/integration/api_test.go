package integration

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestAPIEmit: an event that a backend emits at any node reaches clients on all
// nodes.
func TestAPIEmit(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, withAPI)
	d := startDriver(t)
	ann := d.open("ann", newest, c.nodes[0].url(), transports["websocket"])
	bob := d.open("bob", newest, c.nodes[1].url(), transports["websocket"])
	ann.call("join", "x")
	bob.call("join", []string{"x", "y"})
	for _, n := range c.nodes {
		backend := n.backend()
		r := backend.post("emit", `{"rooms":["x","y"],"event":"news","args":[1,{"a": "<&>"},null]}`)
		ann.hears("news", "1", `{"a":"<&>"}`, "null")
		if heard := bob.hears("news", "1", `{"a":"<&>"}`, "null"); r.Offset == "" || len(heard.Args) != 4 {
			t.Errorf("got offset %q and events %v", r.Offset, heard)
		}
		backend.post("emit", `{"everyone":true,"except":["y"],"event":"all but y"}`)
		ann.hears("all but y")
		backend.post("emit", `{"sockets":["`+bob.state().ID+`"],"event":"bob","volatile":true}`)
		bob.hears("bob")
		backend.post("emit", `{"rooms":["x"],"exceptSockets":["`+ann.state().ID+`"],"event":"bytes","args":[{"b":{"_placeholder":true,"num":0}}],"attachments":["wP/u"]}`)
		bob.hears("bytes", `{"b":{"$bytes":"c0ffee"}}`)
	}
}

// TestAPIAsk: acks are collected from all nodes, and silent sockets are named.
func TestAPIAsk(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, withAPI)
	loud, quiet := startDriver(t), startDriver(t)
	ann := loud.open("ann", newest, c.nodes[0].url(), transports["websocket"])
	bob := loud.open("bob", newest, c.nodes[1].url(), transports["websocket"])
	eve := quiet.open("eve", newest, c.nodes[1].url(), transports["websocket"])
	for _, s := range []*npmSocket{ann, bob, eve} {
		s.call("join", "x")
	}
	ask := func(timeout int, answered ...*npmSocket) apiReply {
		t.Helper()
		r := c.nodes[0].backend().post("ask", fmt.Sprintf(`{"rooms":["x"],"event":"well?","args":[1,{"_placeholder":true,"num":0}],"attachments":["AP8="],"timeout":%d}`, timeout))
		var got, want []string
		for _, a := range r.Answers {
			got = append(got, fmt.Sprintf("%s %s %x", a.Socket, a.Args, a.Attachments))
		}
		for _, s := range answered {
			want = append(want, s.state().ID+` [1,{"_placeholder":true,"num":0}] [00ff]`)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		return r
	}
	if r := ask(20000, ann, bob, eve); r.Partial || len(r.SilentSockets)+len(r.SilentNodes) > 0 {
		t.Errorf("all have answered: %s", r.text)
	}
	id := eve.state().ID
	quiet.suspend()
	if r := ask(1500, ann, bob); !r.Partial || !slices.Equal(r.SilentSockets, []string{id}) || len(r.SilentNodes) > 0 {
		t.Errorf("eve is silent: %s", r.text)
	}
	quiet.resume()
}

// TestAPIPartial: the answers of a stopped node are missing, and the result
// reports it.
func TestAPIPartial(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, withAPI)
	a, b := c.nodes[0], c.nodes[1]
	d := startDriver(t)
	var ids []string
	for i := range 6 {
		s := d.open(fmt.Sprint("ann", i), newest, a.url(), transports["websocket"])
		s.call("join", "x")
		ids = append(ids, s.state().ID)
	}
	slices.Sort(ids)
	d.open("bob", newest, b.url(), transports["websocket"]).call("join", "x")
	b.pause()
	defer b.resume()
	var reads sync.WaitGroup // immediately: after a while the other nodes drop the node
	for _, path := range []string{"sockets", "rooms", "members?room=x"} {
		reads.Go(func() {
			r := a.backend().do(apiCall{method: "GET", path: path})
			if !r.Partial || !slices.Equal(r.SilentNodes, []string{b.log.ID}) {
				t.Errorf("%s: %s", path, r.text)
			}
			var got []string
			for _, s := range r.Sockets {
				got = append(got, s.ID)
			}
			for _, m := range r.Members {
				got = append(got, m.ID)
			}
			if path != "rooms" && !slices.Equal(got, ids) || path == "rooms" && !slices.Equal(r.Rooms, []apiRoom{{"x", len(ids)}}) {
				t.Errorf("%s: want %q, got %s", path, ids, r.text)
			}
		})
	}
	reads.Wait()
}

// TestAPICommands: join, leave and disconnect reach clients on all nodes, including
// disconnected ones.
func TestAPICommands(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, withAPI)
	d := startDriver(t)
	link := c.nodes[1].relay()
	ann := d.open("ann", newest, c.nodes[0].url(), transports["websocket"])
	bob := d.open("bob", newest, link.url(), transports["websocket"])
	ann.call("join", "x")
	bob.call("join", "x")
	b := c.nodes[0].backend()
	both := func(event string) {
		t.Helper()
		ann.hears(event)
		bob.hears(event)
	}
	b.post("join", `{"rooms":["x"],"join":["y","z"]}`)
	b.post("emit", `{"rooms":["y"],"event":"in y"}`)
	both("in y")
	b.post("leave", `{"rooms":["x"],"except":["nobody's"],"leave":["y"]}`)
	b.post("emit", `{"rooms":["y"],"event":"not heard"}`)
	b.post("emit", `{"rooms":["z"],"event":"in z"}`)
	both("in z")

	bobID := bob.state().ID
	link.down()
	bob.await("disconnect")
	b.post("join", `{"sockets":["`+bobID+`"],"join":["away"]}`)
	b.post("emit", `{"rooms":["away"],"event":"while away"}`)
	link.up()
	if !bob.await("connect").Recovered {
		t.Error("bob has not recovered")
	}
	bob.hears("while away")

	link.down()
	bob.await("disconnect")
	b.post("disconnect", `{"rooms":["x"],"close":true}`)
	if r := ann.await("disconnect"); r.Reason != "io server disconnect" {
		t.Errorf("ann is disconnected by %q", r.Reason)
	}
	link.up()
	if bob.await("connect").Recovered {
		t.Error("bob was recovered, although a command disconnected him meanwhile")
	}
}

// TestAPIReads: any node returns the sockets, rooms, members and histories of all
// nodes.
func TestAPIReads(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, withAPI, "REJOIN_NAMESPACES=/,/chat")
	d := startDriver(t)
	ann := d.open("ann", newest, c.nodes[0].url(), transports["websocket"])
	bob := d.open("bob", newest, c.nodes[1].url(), transports["websocket"])
	ann.call("join", "x")
	bob.call("join", []string{"x", "y & z"})
	chat := bob.join("chat", "/chat", nil)
	chat.await("connect")
	ids := []string{ann.state().ID, bob.state().ID}
	slices.Sort(ids)
	for i, n := range c.nodes {
		b := n.backend()
		var got []string
		for _, s := range b.get("sockets").Sockets {
			got = append(got, s.ID)
		}
		if !slices.Equal(got, ids) {
			t.Errorf("sockets %q, want %q", got, ids)
		}
		if r := b.get("sockets?room=x&except=y+%26+z"); len(r.Sockets) != 1 || r.Sockets[0].ID != ann.state().ID ||
			r.Sockets[0].Node != c.nodes[0].log.ID || !slices.Equal(r.Sockets[0].Rooms, []string{"x"}) {
			t.Errorf("%s", r.text)
		}
		if r := b.get("sockets?namespace=/chat"); len(r.Sockets) != 1 || r.Sockets[0].Rooms == nil {
			t.Errorf("%s", r.text)
		}
		if r := b.get("rooms"); !slices.Equal(r.Rooms, []apiRoom{{"x", 2}, {"y & z", 1}}) {
			t.Errorf("%s", r.text)
		}
		if r := b.get("members?room=x"); len(r.Members) != 2 || r.Members[0].ID != ids[0] || r.Members[1].ID != ids[1] {
			t.Errorf("%s", r.text)
		}
		if r := b.get("members?room=nobody"); len(r.Members) != 0 || r.Partial {
			t.Errorf("%s", r.text)
		}
		room := fmt.Sprint("room", i)
		for k := range 5 {
			r := b.post("emit", fmt.Sprintf(`{"rooms":[%q],"event":"news","args":[%d,"<&>"]}`, room, k))
			if r.Offset == "" {
				t.Error("no offset")
			}
		}
		ann.call("to", room, "bytes", bytesArg("c0ffee"))
		var before string
		var texts []string
		for more := true; more; {
			r := b.get("history?limit=2&room=" + room + before)
			var page []string
			for _, e := range r.Events {
				page = append(page, fmt.Sprintf("%s %s %x", e.Event, e.Args, e.Attachments))
			}
			texts = append(page, texts...)
			before, more = "&before="+url.QueryEscape(r.Events[0].Offset), r.More
		}
		want := []string{`news [0,"<&>"] []`, `news [1,"<&>"] []`, `news [2,"<&>"] []`, `news [3,"<&>"] []`, `news [4,"<&>"] []`,
			`bytes [{"_placeholder":true,"num":0}] [c0ffee]`}
		if !slices.Equal(texts, want) {
			t.Errorf("history %q", texts)
		}
	}
}

// TestAPIBatch: the emits of a batch come in their order, each with a result.
func TestAPIBatch(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1, withAPI)
	d := startDriver(t)
	ann := d.open("ann", newest, c.nodes[0].url(), transports["websocket"])
	b := c.nodes[0].backend()
	var emits []string
	for i := range 500 {
		emits = append(emits, fmt.Sprintf(`{"everyone":true,"event":"news","args":[%d]}`, i))
	}
	r := b.post("batch", `{"emits":[`+strings.Join(emits, ",")+`]}`, "key")
	for i := range emits {
		ann.hears("news", fmt.Sprint(i))
	}
	if len(r.Results) != 500 || r.Results[0].Offset >= r.Results[499].Offset {
		t.Errorf("%s", excerpt(r.text))
	}
	if again := b.post("batch", `{"emits":[`+strings.Join(emits, ",")+`]}`, "key"); again.text != r.text {
		t.Errorf("again: %s", excerpt(again.text))
	}
	r = b.do(apiCall{method: "POST", path: "batch", wrong: true, body: `{"emits":[
		{"everyone":true,"event":"first"}, {"everyone":true,"event":"connect"}, 7, {"event":"nobody"},
		{"namespace":"/none","everyone":true,"event":"news"}, {"everyone":true,"event":"last"}]}`})
	var got []string
	for _, result := range r.Results {
		got = append(got, fmt.Sprint(result.Status, result.Problem.Code))
	}
	if want := []string{"200", "400reserved_event", "400bad_request", "400bad_request", "404unknown_namespace", "200"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	ann.hears("first")
	ann.hears("last")
}

package integration

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"github.com/rejoin-io/rejoin/internal/api"
)

// TestAPIEmit: what a backend emits at any node reaches clients on all.
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
			t.Errorf("offset %q, heard %v", r.Offset, heard)
		}
		backend.post("emit", `{"everyone":true,"except":["y"],"event":"all but y"}`)
		ann.hears("all but y")
		backend.post("emit", `{"sockets":["`+bob.state().ID+`"],"event":"bob","volatile":true}`)
		bob.hears("bob")
		backend.post("emit", `{"rooms":["x"],"exceptSockets":["`+ann.state().ID+`"],"event":"bytes","args":[{"b":{"_placeholder":true,"num":0}}],"attachments":["wP/u"]}`)
		bob.hears("bytes", `{"b":{"$bytes":"c0ffee"}}`)
	}
}

// TestAPIOnce: a call with an Idempotency-Key happens once, at whichever nodes it is
// made, and is answered as it was the first time.
func TestAPIOnce(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, withAPI)
	d := startDriver(t)
	ann := d.open("ann", newest, c.nodes[0].url(), transports["websocket"])
	ann.call("join", "x")
	const body = `{"rooms":["x"],"event":"news","args":[1]}`
	for round := range 10 {
		key := fmt.Sprint("round-", round)
		replies := make([]apiReply, 8)
		var calls sync.WaitGroup
		for i := range replies {
			calls.Go(func() {
				for again := true; again; { // as its problem says
					replies[i] = c.nodes[i%2].backend().do(apiCall{method: "POST", path: "emit", body: body, key: key})
					again = replies[i].status == http.StatusConflict
					if again && (replies[i].Code != "under_way" || replies[i].header.Get("Retry-After") != "1" || !replies[i].MayHave) {
						t.Errorf("%d %s", replies[i].status, replies[i].text)
						return
					}
				}
			})
		}
		calls.Wait()
		first := 0
		for _, r := range replies {
			if r.header.Get("Idempotency-Replayed") == "" {
				first++
			}
			if r.status != http.StatusOK || r.Offset == "" || r.text != replies[0].text {
				t.Errorf("%d %s", r.status, r.text)
			}
		}
		if first != 1 {
			t.Errorf("%d calls were the first", first)
		}
		ann.hears("news", "1")
	}
	b := c.nodes[1].backend()
	b.post("emit", body, "key")
	ann.hears("news", "1")
	for path, other := range map[string]string{"emit": `{"rooms":["x"],"event":"news","args":[2]}`, "ask": body} {
		if r := b.do(apiCall{method: "POST", path: path, body: other, key: "key"}); r.status != http.StatusUnprocessableEntity || r.Code != "key_reused" || r.MayHave {
			t.Errorf("%d %s", r.status, r.text)
		}
	}
	// What failed did nothing, and its key is free.
	if r := b.do(apiCall{method: "POST", path: "emit", body: `{"rooms":[],"event":"news"}`, key: "new", wrong: true}); r.status != http.StatusBadRequest {
		t.Errorf("%d %s", r.status, r.text)
	}
	b.post("join", `{"rooms":["x"],"join":["y"]}`, "new")
	if r := b.post("join", `{"rooms":["x"],"join":["y"]}`, "new"); r.status != http.StatusNoContent || r.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("%d %s", r.status, r.text)
	}
	b.post("emit", `{"rooms":["y"],"event":"end"}`)
	ann.hears("end") // and nothing before
}

// TestAPINodeKilled: a call whose node is killed is not made again under its key:
// nobody knows what became of it.
func TestAPINodeKilled(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, withAPI)
	a, b := c.nodes[0], c.nodes[1]
	d := startDriver(t)
	ann := d.open("ann", newest, b.url(), transports["websocket"])
	ann.call("join", "x")
	const question = `{"rooms":["x"],"event":"well?","timeout":60000}`
	d.suspend() // nobody answers
	before := b.metrics()["rejoin_deliveries_total"]
	asked := make(chan error, 1)
	go func() { // ends with the node
		_, err := a.backend().try(apiCall{method: "POST", path: "ask", body: question, key: "key"})
		asked <- err
	}()
	b.eventually("asked", func() error {
		if b.metrics()["rejoin_deliveries_total"] == before {
			return errors.New("nothing is delivered")
		}
		return nil
	})
	a.kill()
	if err := <-asked; err == nil {
		t.Error("the killed node has answered")
	}
	if r := b.backend().do(apiCall{method: "POST", path: "ask", body: question, key: "key"}); r.Code != "under_way" || !r.MayHave {
		t.Errorf("%d %s", r.status, r.text)
	}
	d.resume()
	ann.hears("well?")
	b.backend().post("emit", `{"rooms":["x"],"event":"end"}`)
	ann.hears("end")
	a.restart()
}

// TestAPIRedisAway: without Redis a call fails in bounded time, says that nothing
// has happened, and can be made again with its key.
func TestAPIRedisAway(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1, withAPI, "REJOIN_REDIS_TIMEOUT=500ms")
	n := c.nodes[0]
	d := startDriver(t)
	ann := d.open("ann", newest, n.url(), transports["websocket"])
	ann.call("join", "x")
	const body = `{"rooms":["x"],"event":"news","args":[1]}`
	n.redis.cut()
	for key, mayHave := range map[string]bool{"key": false, "": true} {
		r := n.backend().do(apiCall{method: "POST", path: "emit", body: body, key: key})
		if r.status != http.StatusServiceUnavailable || r.Code != "unavailable" || r.MayHave != mayHave {
			t.Errorf("key %q: %d %s", key, r.status, r.text)
		}
	}
	if r := n.backend().do(apiCall{method: "GET", path: "history?room=x"}); r.status != http.StatusServiceUnavailable || r.MayHave {
		t.Errorf("%d %s", r.status, r.text)
	}
	n.redis.mend()
	n.awaitReady()
	heard := 0
	n.eventually("able to emit", func() error {
		r := n.backend().do(apiCall{method: "POST", path: "emit", body: body, key: "key"})
		if r.status != http.StatusOK {
			return errors.New(r.text)
		}
		return nil
	})
	n.backend().post("emit", `{"rooms":["x"],"event":"end"}`)
	for r := ann.await("event"); r.Event != "end"; r = ann.await("event") {
		heard++
	}
	if heard < 1 || heard > 2 { // the one without a key may have happened
		t.Errorf("%d events", heard)
	}
}

// TestAPIAsk: acks are collected from all nodes, and who was silent is named.
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

// TestAPIPartial: what a node that stands still would have said is missing, and
// said to be.
func TestAPIPartial(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, withAPI)
	a, b := c.nodes[0], c.nodes[1]
	d := startDriver(t)
	ann := d.open("ann", newest, a.url(), transports["websocket"])
	bob := d.open("bob", newest, b.url(), transports["websocket"])
	ann.call("join", "x")
	bob.call("join", "x")
	b.pause()
	defer b.resume()
	var reads sync.WaitGroup // at once: after a while the node is gone for the others
	for _, path := range []string{"sockets", "rooms", "members?room=x"} {
		reads.Go(func() {
			r := a.backend().do(apiCall{method: "GET", path: path})
			if n := len(r.Sockets) + len(r.Rooms) + len(r.Members); n != 1 || !r.Partial || !slices.Equal(r.SilentNodes, []string{b.log.id}) {
				t.Errorf("%s: %s", path, r.text)
			}
		})
	}
	reads.Wait()
}

// TestAPICommands: join, leave and disconnect reach clients on all nodes, also those
// who are away.
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
		t.Error("bob was disconnected while away, and has recovered")
	}
}

// TestAPIReads: any node tells of the sockets, rooms, members and histories of all.
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
			r.Sockets[0].Node != c.nodes[0].log.id || !slices.Equal(r.Sockets[0].Rooms, []string{"x"}) {
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

// TestAPIContract: the file that the node serves is a good one, and has the routes of
// the implementation, all of them and no others.
func TestAPIContract(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	response, err := internalHTTP.Get("http://" + n.internal + "/api/v1/openapi.yaml") // without a key
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", response.Status, err)
	}
	document, err := libopenapi.NewDocument(text)
	if err != nil {
		t.Fatal(err)
	}
	v, errs := validator.NewValidator(document)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if ok, errs := v.ValidateDocument(); !ok {
		t.Errorf("%v", errs)
	}
	model, err := document.BuildV3Model()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for path, item := range model.Model.Paths.PathItems.FromOldest() {
		for method := range item.GetOperations().FromOldest() {
			got = append(got, strings.ToUpper(method)+" /api/v1"+path)
		}
	}
	if slices.Sort(got); !slices.Equal(got, api.Routes()) {
		t.Errorf("the file has\n%q, the implementation\n%q", got, api.Routes())
	}
}

// TestAPIPorts: the API and the profiles are at the internal port, for who has a key,
// and not at the public one. No key is shown.
func TestAPIPorts(t *testing.T) {
	t.Parallel()
	open, closed := startNode(t, withAPI, "REJOIN_LOG_LEVEL=debug"), startNode(t)
	get := func(url, key string) int {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-API-Key", key)
		response, err := internalHTTP.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response.StatusCode
	}
	for _, path := range []string{"/api/v1/rooms", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline", "/debug/pprof/profile?seconds=1"} {
		for _, tt := range []struct {
			addr, key string
			status    int
		}{
			{open.internal, apiKey, 200}, {open.internal, "", 401}, {open.internal, "a guess", 401},
			{closed.internal, apiKey, 403}, {open.addr, apiKey, 404},
		} {
			if got := get("http://"+tt.addr+path, tt.key); got != tt.status {
				t.Errorf("%s with %q: %d, want %d", path, tt.key, got, tt.status)
			}
		}
	}
	for status, want := range map[string]float64{"200": 1, "401": 2} {
		if got := sum(open.metrics(), "rejoin_api_requests_total", `route="rooms"`, `status="`+status+`"`); got != want {
			t.Errorf("%v requests are counted as %s, want %v", got, status, want)
		}
	}
	if got := sum(open.metrics(), "rejoin_api_request_seconds_count", `route="rooms"`); got != 3 {
		t.Errorf("%v requests are timed", got)
	}
	for _, secret := range []string{apiKey, "a guess"} {
		if open.log.contains(secret) {
			t.Errorf("the log shows %q", secret)
		}
	}
	if !open.log.contains("an API call failed") {
		t.Error("the log says nothing of refused keys")
	}
}

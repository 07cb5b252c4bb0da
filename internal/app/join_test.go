package app

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/rejoin-io/rejoin/internal/auth"
	"github.com/rejoin-io/rejoin/internal/limit"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// A joinReply is the ack of a join with history.
type joinReply struct {
	OK      bool
	Code    code
	Message string
	Rooms   []string
	Joined  string
	History map[string]struct {
		Events []struct {
			Offset, Event string
			Args          []json.RawMessage
			At            int64
		}
		More     bool
		Complete *bool
	}
}

// join sends a join and returns its ack, and how many attachments it has.
func (c *rawClient) join(array string) (r joinReply, attachments int) {
	c.Helper()
	c.calls++
	c.write(fmt.Sprintf("42%d%s", c.calls, array))
	for {
		text := c.next()
		if strings.HasPrefix(text, "46") {
			_, _ = fmt.Sscanf(text[2:], "%d-", &attachments)
			for range attachments {
				c.next()
			}
		} else if !strings.HasPrefix(text, "43") {
			continue
		}
		args := []*joinReply{&r}
		if err := json.Unmarshal([]byte(text[strings.Index(text, "["):]), &args); err != nil {
			c.Fatalf("the ack %.300s: %v", text, err)
		}
		return r, attachments
	}
}

func TestJoinWithHistory(t *testing.T) {
	_, srv, url := serveApp(t, Options{})
	c := dialApp(t, url)
	for i := range 5 {
		c.call(fmt.Sprintf(`["to","x","n",%d,%s]`, i, placeholders), "binary")
	}
	r, attachments := c.join(`["join",["x","y"],{"rewind":2}]`)
	x := r.History["x"]
	if !r.OK || fmt.Sprint(r.Rooms) != "[x y]" || len(x.Events) != 2 || !x.More || x.Complete != nil || attachments != 2 {
		t.Errorf("joined with %+v, %d attachments", r, attachments)
	}
	if e := x.Events[1]; string(e.Args[0]) != "4" || e.Event != "n" || e.At == 0 || !strings.Contains(string(e.Args[1]), `"num":1`) {
		t.Errorf("the last event is %+v", e)
	}
	again, _ := c.join(fmt.Sprintf(`["join","x",{"since":%q}]`, x.Events[0].Offset))
	if x := again.History["x"]; len(x.Events) != 1 || x.Complete == nil || !*x.Complete {
		t.Errorf("since the first of them: %+v", again)
	}
	// Pages of history continue what the client gets from its join on.
	_ = srv.To("x").Emit(t.Context(), "n", 5)
	for i, want := range []string{"[3 4]", "[1 2]", "[0]"} {
		before := ""
		if i > 0 {
			before = x.Events[0].Offset
		}
		page, _ := c.call(fmt.Sprintf(`["history","x",{"limit":2,"until":%q,"before":%q}]`, r.Joined, before))
		var got []string
		for _, e := range page.Events {
			got = append(got, string(e.Args[0]))
		}
		if fmt.Sprint(got) != want || page.More != (i < 2) {
			t.Errorf("page %d has %s, more %v, want %s", i, got, page.More, want)
		}
		x.Events[0].Offset = page.Events[0].Offset
	}
	if r, _ := c.join(`["join","z"]`); !r.OK || r.History != nil || r.Joined != "" {
		t.Errorf("a join without history: %+v", r)
	}
}

func TestJoinWithHistoryIsRefused(t *testing.T) {
	joinOnly, err := auth.ParsePermissions(`{"join": ["*"]}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, array string
		options     Options
		code        code
	}{
		{"a negative number", `["join","x",{"rewind":-1}]`, Options{}, badRequest},
		{"too many events", `["join","x",{"rewind":201}]`, Options{}, badRequest},
		{"not a number", `["join","x",{"rewind":"1"}]`, Options{}, badRequest},
		{"not an object", `["join","x",7]`, Options{}, badRequest},
		{"an empty offset", `["join","x",{"since":""}]`, Options{}, badRequest},
		{"not an offset", `["join","x",{"since":"x"}]`, Options{}, badRequest},
		{"too many rooms", `["join",["` + strings.Join(make([]string, socketio.RewindRooms+1), `x","`) + `x"],{"rewind":1}]`, Options{}, tooMany},
		{"a user's room", `["join","user:x",{"rewind":1}]`, Options{}, forbidden},
		{"no right to read", `["join","x",{"rewind":1}]`, Options{Anonymous: joinOnly}, forbidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, srv, url := serveApp(t, c.options)
			client := dialApp(t, url)
			if r, _ := client.join(c.array); r.OK || r.Code != c.code {
				t.Errorf("answered %+v, want %s", r, c.code)
			}
			members, err := srv.To("x").FetchSockets(t.Context())
			if err != nil || len(members) > 0 {
				t.Errorf("%d members, %v", len(members), err)
			}
		})
	}
}

// A join with history counts as a read, and one that cannot read does not join.
func TestJoinWithHistoryIsARead(t *testing.T) {
	counted, _, url := serveApp(t, Options{Limits: limit.NewClients(limit.ClientOptions{ReadBytes: 1000})})
	c := dialApp(t, url)
	c.call(`["to","x","n","` + strings.Repeat("x", 250_000) + `"]`)
	for i := range 2 { // together they have used what a burst allows
		if r, _ := c.join(`["join","x",{"rewind":1}]`); r.OK != (i == 0) || !r.OK && r.Code != rateLimited {
			t.Errorf("join %d: %+v", i, r)
		}
	}
	if r, _ := c.join(`["join","x"]`); !r.OK {
		t.Errorf("a join without history: %+v", r)
	}
	reads := counted.reads.Load()
	c.write(`42["join","z",{"rewind":1}]`) // without an ack nothing needs to be read
	c.call(`["to","z","n"]`)
	if got := counted.reads.Load(); got != reads {
		t.Errorf("%d reads for a join without an ack", got-reads)
	}
	counted.bad = adapter.ErrUndecodable
	if r, _ := dialApp(t, url).join(`["join","x",{"rewind":1}]`); r.OK {
		t.Errorf("with an undecodable event: %+v", r)
	}
}

// The rooms of a join share the attachments of one ack.
func TestJoinWithManyAttachments(t *testing.T) {
	_, _, url := serveApp(t, Options{})
	c := dialApp(t, url)
	for _, room := range []string{"x", "y"} {
		for i := range 7 {
			c.call(fmt.Sprintf(`["to",%q,"n",%d,%s]`, room, i, placeholders), "binary")
		}
	}
	r, attachments := c.join(`["join",["y","x"],{"rewind":200}]`)
	if x, y := r.History["x"], r.History["y"]; attachments != packet.MaxAttachments || len(x.Events)+len(y.Events) != attachments || x.More == y.More {
		t.Errorf("%d attachments: %+v", attachments, r)
	}
}

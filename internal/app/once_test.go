package app

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/rejoin-io/rejoin/internal/limit"
	"github.com/rejoin-io/rejoin/pkg/adapter"
)

const uuid = "3c1a4e1e-0b7f-4c55-9d5a-7f3f6f0f3a11"

// kept returns the first arguments of the newest events of a room that the client is in.
func (c *rawClient) kept(room string) (all []string) {
	r, _ := c.call(`["history","` + room + `",{"limit":200}]`)
	for _, e := range r.Events {
		all = append(all, string(e.Args[0]))
	}
	return all
}

// TestOnce: an event with an id is sent once by all connections of a user, and every try is acked alike.
func TestOnce(t *testing.T) {
	counted, _, url := serveApp(t, Options{})
	first, second := dialApp(t, url), dialApp(t, url)
	first.call(`["join","r"]`)
	defer func() {
		if n := counted.ids.Load(); n < 15 {
			t.Errorf("%d events had an untrusted id, want all", n)
		}
	}()
	for i, inner := range []string{`"to","r","chat"`, `"broadcast","chat"`, `"all","chat"`, `"private","nobody","chat"`} {
		event := fmt.Sprintf(`["once","%s-%d",%s,%d]`, uuid[:20], i, inner, i)
		counted.lost.Store(int32(i)) // which the node repeats by itself
		a, _ := first.call(event)
		b, _ := second.call(event)
		if !a.OK || a.Repeated != (i > 0) || !b.OK || !b.Repeated || a.Offset != b.Offset || a.Offset == "" {
			t.Errorf("%s: %+v, and again %+v", event, a, b)
		}
		other, _ := second.call(strings.Replace(event, `"chat"`, `"chat","more"`, 1))
		if other.Code != keyReused || other.MayHave {
			t.Errorf("another event: %+v, want %s", other, keyReused)
		}
	}
	// What changes nothing twice needs no id, and accepts one.
	for range 2 {
		if r, _ := second.call(`["once","` + uuid + `","join","r"]`); !r.OK {
			t.Errorf("join: %+v", r)
		}
	}
	binary := `["once","` + strings.ToUpper(uuid) + `","to","r","bytes",{"_placeholder":true,"num":0}]`
	for i, attachment := range []string{"one", "one", "two"} {
		r, _ := second.call(binary, attachment)
		if r.OK != (i < 2) || r.Repeated != (i == 1) || i == 2 && r.Code != keyReused {
			t.Errorf("try %d of an event with an attachment: %+v", i, r)
		}
	}
	if got := first.kept("r"); len(got) != 2 || got[0] != "0" {
		t.Errorf("the room has %q, want two events", got)
	}
}

// TestOnceIsRefused: an event without a proper id, or inside which there is no event, does nothing.
func TestOnceIsRefused(t *testing.T) {
	_, _, url := serveApp(t, Options{})
	c := dialApp(t, url)
	c.call(`["join","r"]`)
	for event, want := range map[string]code{
		`["once"]`: badRequest,
		`["once","` + uuid[:15] + `","to","r","chat",1]`:                  badRequest,
		`["once","` + strings.Repeat("i", 65) + `","to","r","chat",1]`:    badRequest,
		`["once","` + uuid + ` ","to","r","chat",1]`:                      badRequest,
		`["once","` + uuid + `é","to","r","chat",1]`:                      badRequest,
		`["once",{},"to","r","chat",1]`:                                   badRequest,
		`["once","` + uuid + `"]`:                                         badRequest,
		`["once","` + uuid + `",1]`:                                       badRequest,
		`["once","` + uuid + `","to"]`:                                    badRequest,
		`["once","` + uuid + `","nothing"]`:                               unknownEvent,
		`["once","` + uuid + `","once","` + uuid + `","to","r","chat",1]`: unknownEvent,
		`["once","` + uuid + `","to","r","disconnect",1]`:                 reservedEvent,
	} {
		if r, _ := c.call(event); r.OK || r.Code != want {
			t.Errorf("%s: %+v, want %s", event, r, want)
		}
	}
	if r, _ := c.call(`["once","` + uuid + `","to","r","chat",1]`); !r.OK || r.Repeated {
		t.Errorf("the id of what was refused: %+v, want an event", r)
	}
}

// TestOnceIsLimited: Redis keeps ids, so they have a rate.
func TestOnceIsLimited(t *testing.T) {
	_, _, url := serveApp(t, Options{Limits: limit.NewClients(limit.ClientOptions{CopyBytes: 1 << 10})})
	c := dialApp(t, url)
	for i := range 1000 {
		if r, _ := c.call(fmt.Sprintf(`["once","%s%d","self","x"]`, uuid, i)); r.Code == rateLimited {
			return
		}
	}
	t.Error("a thousand ids in a moment")
}

// TestOnceOfUsers: an id belongs to a user and a namespace, and that of self to a socket.
func TestOnceOfUsers(t *testing.T) {
	ids := []string{}
	for _, of := range [][4]string{{"/", "a", "", uuid}, {"/", "b", "", uuid}, {"/chat", "a", "", uuid}, {`/" "`, "", "", uuid}, {"/", `" "`, "", uuid},
		{"/", "a", "s", uuid}, {"/", "a", "", "s " + uuid}} {
		ids = append(ids, onceID(of[0], of[1], of[2], of[3]))
	}
	if slices.Sort(ids); len(slices.Compact(ids)) != 7 {
		t.Errorf("%q are not different", ids)
	}
}

// TestOnceToOneself: self is sent once to each socket of a user that sends it with one id.
func TestOnceToOneself(t *testing.T) {
	_, _, url := serveApp(t, Options{})
	for range 2 {
		c := dialApp(t, url)
		for i := range 2 {
			if r, _ := c.call(`["once","` + uuid + `","self","e"]`); !r.OK || r.Repeated != (i > 0) {
				t.Errorf("attempt %d: %+v", i, r)
			}
		}
	}
}

// TestOnceFailures: what a client is told about an event that can't be completed.
func TestOnceFailures(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code code
		open bool
	}{
		{adapter.ErrReused, keyReused, false},
		{fmt.Errorf("%w: %w", adapter.ErrUnavailable, adapter.ErrReused), keyReused, true},
		{fmt.Errorf("%w: %w", adapter.ErrUnavailable, adapter.ErrIncomplete), partlyDone, true},
	} {
		if f := failure(t.Context(), tt.err); f.Code != tt.code || f.MayHave != tt.open {
			t.Errorf("%v: %+v, want %s, %v", tt.err, f, tt.code, tt.open)
		}
	}
}

package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A measured adapter counts the bytes that it sends to other nodes, and takes queries as
// an older release does.
type measured struct {
	adapter.Adapter
	sent  atomic.Int64
	older bool
}

func (m *measured) Send(ctx context.Context, to adapter.NodeID, message adapter.Message) error {
	m.sent.Add(int64(len(message.Data)))
	return m.Adapter.Send(ctx, to, message)
}

func (m *measured) Next(ctx context.Context) (adapter.Event, error) {
	ev, err := m.Adapter.Next(ctx)
	if m.older && ev.Ask != "" {
		header, _ := parseQueryHeader(ev.Ask)
		header.Members = nil
		text, err := json.Marshal(header)
		if err != nil {
			return ev, err
		}
		ev.Ask = string(text)
	}
	return ev, err
}

// measured runs a server of the cluster whose users have names of 30 kB, so that a page has
// eight.
func (c *testCluster) measured(t *testing.T, id adapter.NodeID, older bool) (*testNode, *measured) {
	t.Helper()
	a, err := c.memory.Node(id)
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	m := &measured{Adapter: a, older: older}
	n := start(t, Options{Adapter: m, Sessions: c.sessions})
	joining(n.Namespace)
	joiningMany(n.Namespace)
	n.Use(func(_ context.Context, r *ConnectRequest) error {
		r.SetUser(strings.Repeat("u", 30_000))
		return nil
	})
	return n, m
}

// Members are listed in pages, each member once, and an answer of another node has at most
// one page, for any rooms.
func TestMembersInPages(t *testing.T) {
	for _, older := range []bool{false, true} {
		t.Run(fmt.Sprintf("older %v", older), func(t *testing.T) {
			c := newCluster(adapter.MemoryOptions{})
			a, _ := c.measured(t, "a", false)
			b, sent := c.measured(t, "b", older)
			var want []string
			for i := range 40 {
				n := a
				if i%4 > 0 {
					n = b
				}
				w := n.client(t)
				w.call(`["join","x"]`)
				if i == 1 {
					w.call(`["join many",100]`)
				}
				want = append(want, w.sid)
			}
			slices.Sort(want)
			b.client(t).call(`["join","y"]`)
			var got []string
			pages := 0
			for more := true; more; pages++ {
				after := ""
				if len(got) > 0 {
					after = got[len(got)-1]
				}
				before := sent.sent.Load()
				all, err := a.To("x").Timeout(patience).Members(t.Context(), after)
				if err != nil || all.Count != len(want) || len(all.Page) == 0 {
					t.Fatalf("%d of %d members, %v", len(all.Page), all.Count, err)
				}
				if bytes := int(sent.sent.Load() - before); !older && all.Answered < bytes-1000 {
					t.Errorf("%d bytes are answered, another node has sent %d", all.Answered, bytes)
				}
				if bytes := sent.sent.Load() - before; !older && bytes > MembersBytes+1000 {
					t.Errorf("another node has sent %d bytes", bytes)
				}
				if len(all.Page) > 8 {
					t.Errorf("a page of %d members, want at most 8", len(all.Page))
				}
				for _, m := range all.Page {
					got = append(got, m.ID)
					if len(m.User) != 30_000 {
						t.Errorf("user %.100s", m.User)
					}
				}
				more = all.More
			}
			if !slices.Equal(got, want) || pages > 8 {
				t.Errorf("%d members in %d pages, want %d", len(got), pages, len(want))
			}
			if all, err := a.To("x").Timeout(patience).Members(t.Context(), want[len(want)-1]); err != nil || len(all.Page) != 0 || all.More || all.Count != len(want) {
				t.Errorf("behind the last: %+v, %v", all, err)
			}
		})
	}
}

// A member that is larger than a page has a page of its own.
func TestLargeMembers(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	n.Use(func(_ context.Context, r *ConnectRequest) error {
		r.SetUser(strings.Repeat("u", MembersBytes+1))
		return nil
	})
	n.client(t)
	n.client(t)
	first, err := n.Everyone().Members(t.Context(), "")
	if err != nil || len(first.Page) != 1 || !first.More || first.Count != 2 {
		t.Fatalf("%d of %d, more %v, %v", len(first.Page), first.Count, first.More, err)
	}
	if all, err := n.Everyone().Members(t.Context(), first.Page[0].ID); err != nil || len(all.Page) != 1 || all.More || all.Page[0].ID == first.Page[0].ID {
		t.Errorf("%d more, %v, %v", len(all.Page), all.More, err)
	}
}

// If a node is silent, the members of other nodes are listed.
func TestMembersWithoutANode(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	a, _ := c.measured(t, "a", false)
	a.client(t).call(`["join","x"]`)
	c.deaf(t, "b", rooms.InNamed("/", "x"))
	all, err := a.To("x").Timeout(patience/100).Members(t.Context(), "")
	if silent := (*UnansweredError)(nil); !errors.As(err, &silent) || fmt.Sprint(silent.Nodes) != "[b]" || len(all.Page) != 1 {
		t.Errorf("%d members, %v", len(all.Page), err)
	}
}

func TestMergeMembers(t *testing.T) {
	page := func(more bool, ids ...string) Members {
		m := Members{More: more, Count: len(ids)}
		for _, id := range ids {
			m.Page = append(m.Page, Member{ID: id})
		}
		return m
	}
	for _, test := range []struct {
		pages []Members
		want  string
		more  bool
	}{
		{nil, "", false},
		{[]Members{page(false, "b", "d"), page(false, "a", "c")}, "a b c d", false},
		{[]Members{page(true, "b", "d"), page(false, "a", "c", "e")}, "a b c d", true},
		{[]Members{page(true, "b", "d"), page(true, "a", "c")}, "a b c", true},
		{[]Members{page(true), page(false, "a")}, "a", false}, // not from a node of this cluster
	} {
		all := mergeMembers(test.pages)
		var got []string
		for _, m := range all.Page {
			got = append(got, m.ID)
		}
		if strings.Join(got, " ") != test.want || all.More != test.more {
			t.Errorf("%v: %v, more %v", test.pages, got, all.More)
		}
	}
}

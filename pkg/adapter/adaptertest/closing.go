package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

func messagesArrive(t *testing.T, newCluster Maker) {
	a, b := two(t, newCluster, Options{})
	for i := range 50 {
		for _, to := range []*node{a, b} {
			m := adapter.Message{Kind: uint8(200 + i), ID: "\x00\xff", Data: []byte{0, byte(i), 255}, From: "x"}
			if err := a.Send(deadline(t), to.Node(), m); err != nil {
				t.Fatalf("Send: %v", err)
			}
		}
	}
	for _, n := range []*node{a, b} {
		for i := range 50 {
			m, err := n.Receive(deadline(t))
			if err != nil {
				t.Fatalf("%s: Receive: %v", n.Node(), err)
			}
			if m.From != a.Node() || m.Kind != uint8(200+i) || m.ID != "\x00\xff" || !slices.Equal(m.Data, []byte{0, byte(i), 255}) {
				t.Fatalf("%s: message %d came as %+v", n.Node(), i, m)
			}
		}
	}
	if err := a.Send(deadline(t), "nobody", adapter.Message{}); !errors.Is(err, adapter.ErrNoNode) {
		t.Errorf("Send to an unknown node: %v, want ErrNoNode", err)
	}
}

func nodesKnowEachOther(t *testing.T, newCluster Maker) {
	c := newCluster(t, Options{})
	nodes := join(t, c, "b", "c", "a")
	expectNodes := func(want ...adapter.NodeID) (known []adapter.Member) {
		t.Helper()
		for _, n := range nodes {
			eventually(t, fmt.Sprintf("%s knows of %v, none of which is catching up", n.Node(), want), func() bool {
				var err error
				if known, err = n.Nodes(deadline(t)); err != nil {
					t.Fatalf("Nodes: %v", err)
				}
				return slices.EqualFunc(known, want, func(m adapter.Member, id adapter.NodeID) bool {
					return m.ID == id && !m.CatchingUp
				})
			})
		}
		return known
	}
	before := expectNodes("a", "b", "c")
	if after := expectNodes("a", "b", "c"); !slices.Equal(after, before) {
		t.Errorf("Nodes: first %+v, then %+v, though no feed was interrupted, want %+v", before, after, before)
	}

	left := nodes[2]
	left.subscribe(room("r"))
	if err := left.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	nodes = nodes[:2]
	expectNodes("b", "c")
	eventually(t, "messages to a node that left are refused", func() bool {
		return errors.Is(nodes[0].Send(deadline(t), left.Node(), adapter.Message{}), adapter.ErrNoNode)
	})
	nodes[0].publish(event("x", room("r")))
	expectNothingElse(nodes...)

	// The id is free, and its new owner inherits nothing from the former one.
	nodes = append(nodes, join(t, c, left.Node())...)
	expectNodes("a", "b", "c")
	nodes[0].publish(event("x", room("r")))
	expectNothingElse(nodes...)
}

func closeEndsCalls(t *testing.T, newCluster Maker) {
	nodes := join(t, newCluster(t, Options{}), "a", "b")
	n, ctx := nodes[0], deadline(t)
	cursor := n.subscribe(room("r"))
	var waiting, started sync.WaitGroup
	for name, wait := range map[string]func() error{
		"Next":    func() error { _, err := n.Next(ctx); return err },
		"Receive": func() error { _, err := n.Receive(ctx); return err },
	} {
		started.Add(1)
		waiting.Go(func() {
			started.Done()
			if err := wait(); !errors.Is(err, adapter.ErrClosed) {
				t.Errorf("%s, waiting when the adapter is closed: %v, want ErrClosed", name, err)
			}
		})
	}
	started.Wait()
	if err := n.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	waiting.Wait()
	for name, err := range callAll(ctx, n, nodes[1].Node(), cursor) {
		if !errors.Is(err, adapter.ErrClosed) {
			t.Errorf("%s after Close: %v, want ErrClosed", name, err)
		}
	}
	n.Unsubscribe(room("r"))
	if err := n.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}

	// Items queued for a node are dropped when it is closed.
	b := nodes[1]
	b.subscribe(room("r"))
	b.publish(event("unread", room("r")))
	if err := b.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if e, err := b.Next(ctx); !errors.Is(err, adapter.ErrClosed) {
		t.Errorf("Next after Close: %q, %v, want ErrClosed", e.Data, err)
	}
}

func contextsEndCalls(t *testing.T, newCluster Maker) {
	a, b := two(t, newCluster, Options{})
	cursor := a.subscribe(room("r"))
	ctx, cancel := context.WithCancel(deadline(t))
	var waiting, started sync.WaitGroup
	for name, wait := range map[string]func() error{
		"Next":    func() error { _, err := a.Next(ctx); return err },
		"Receive": func() error { _, err := a.Receive(ctx); return err },
	} {
		started.Add(1)
		waiting.Go(func() {
			started.Done()
			if err := wait(); !errors.Is(err, context.Canceled) {
				t.Errorf("%s, waiting when its context ends: %v, want context.Canceled", name, err)
			}
		})
	}
	started.Wait()
	cancel()
	waiting.Wait()
	for name, err := range callAll(ctx, a, b.Node(), cursor) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with an ended context: %v, want context.Canceled", name, err)
		}
	}

	// This has published nothing and lost nothing.
	b.publish(event("later", room("r")))
	a.expect("later")
	expectNothingElse(a, b)
}

// callAll calls every method that can fail, and returns the errors.
func callAll(ctx context.Context, n *node, to adapter.NodeID, c adapter.Cursor) map[string]error {
	errs := make(map[string]error)
	_, errs["Nodes"] = n.Nodes(ctx)
	_, errs["Publish"] = n.Publish(ctx, event("x", room("r")))
	_, errs["Publish to nobody"] = n.Publish(ctx, event("x"))
	_, errs["Subscribe"] = n.Subscribe(ctx, room("s"))
	_, errs["Next"] = n.Next(ctx)
	_, errs["Head"] = n.Head(ctx, c)
	for _, err := range n.Replay(ctx, map[rooms.Room]adapter.Cursor{room("r"): c}, c, 0) {
		errs["Replay"] = errors.Join(errs["Replay"], err)
	}
	if errs["Replay"] == nil {
		errs["Replay"] = errors.New("no error")
	}
	_, errs["Fetch"] = n.Fetch(ctx, c, []adapter.Place{{Room: room("r"), At: c.At}})
	_, _, errs["History"] = n.History(ctx, room("r"), adapter.Page{Events: 1})
	errs["Send"] = n.Send(ctx, to, adapter.Message{})
	_, errs["Receive"] = n.Receive(ctx)
	return errs
}

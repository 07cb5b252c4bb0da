package socketio

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A command is an event that changes memberships: its kind is kindJoin or kindLeave.
//
// It has a position in one partition, that of its target. With several partitions it also carries,
// as attachments, the newest position of each of them when it was published. Nodes receive the
// partitions at different paces, so a node's own position when it executes the command does not say
// which events were published after the command. Nodes before 0.4 ignore the attachments.
type command struct {
	names []string
	at    adapter.Position
	// head is the newest position in each partition, read before the command was
	// published. It is zero if there is one partition.
	head adapter.Cursor
	// prior is the same, read before head: an event whose copy in one partition is
	// not covered by head has no later copy in another one that is covered by prior.
	prior adapter.Cursor
	// before is the node's cursor before the command.
	before adapter.Cursor
	// due is the position of the earlier command that joined the socket to the room in which this
	// command was found late; zero if there is none. Such a copy of a command belongs to one
	// socket.
	due adapter.Position

	mu     sync.Mutex
	marker *marker // of the sockets that have executed it most recently; nil before
}

// newCommand returns the command in an event, or nil if it is not one.
func newCommand(ev *adapter.Event) *command {
	if ev.Kind != kindJoin && ev.Kind != kindLeave {
		return nil
	}
	c := &command{at: ev.Position}
	_ = json.Unmarshal(ev.Data, &c.names) // written by a node
	if len(ev.Attachments) != 2 {
		return c
	}
	head, err1 := adapter.ParseCursor(string(ev.Attachments[0]))
	prior, err2 := adapter.ParseCursor(string(ev.Attachments[1]))
	if err1 == nil && err2 == nil {
		c.head, c.prior = head, prior
	}
	return c
}

// spread reports whether the command carries its position in several partitions.
func (c *command) spread() bool { return !c.head.IsZero() }

// begins returns the join position of the rooms that the command ev joins, and the command's
// position, which the client must have received to have those rooms' events; zero if the order has
// one partition.
func (c *command) begins(ev *adapter.Event) (at adapter.Cursor, due adapter.Position) {
	if !c.spread() {
		return ev.Cursor, due
	}
	progress := adapter.NewProgress(c.head)
	at = progress.To(ev.Position)
	if c.due != (adapter.Position{}) {
		return progress.To(c.due), c.due // c.head may cover a later position of that partition
	}
	return at, ev.Position
}

// ends returns the leave position of the rooms that the command leaves, for a socket that has been
// given everything up to seen.
func (c *command) ends(seen adapter.Cursor) adapter.Cursor {
	if c.spread() && c.head.SameHistory(seen) {
		return seen.Max(c.head)
	}
	return seen
}

// heads returns the attachments of a command: none if there is one partition.
func (s *Server) heads(ctx context.Context) ([][]byte, error) {
	now := s.feed.now()
	if now.Partitions() == 1 {
		return nil, nil
	}
	var attachments [2][]byte // the later one first
	for i := range attachments {
		head, err := s.adapter.Head(ctx)
		if err != nil {
			return nil, notSent(ctx, err)
		}
		attachments[1-i] = []byte(head.String())
	}
	return attachments[:], nil
}

// notSent returns an error for a command that was not published because a read before it failed.
func notSent(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("socketio: publish: %w", err)
	}
	return fmt.Errorf("socketio: publish: %w: %v", adapter.ErrNotPublished, err)
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"
)

// measurePublish counts events that publishers, half of them at each node and
// each with one in flight, send to one of many rooms. Every room has a member at
// either node, and both must get each event once.
func measurePublish(ctx context.Context, l *loop, cl *cluster, p plan) (sample, error) {
	b := &bazaar{rooms: p.Stalls}
	for _, node := range cl.nodes {
		if err := b.furnish(ctx, l, node, p.Senders/len(cl.nodes)); err != nil {
			return sample{}, err
		}
	}
	s, err := l.measure(b, cl, p)
	s.Value = per(s.Usage.cpu(), s.Count, time.Microsecond)
	return s, err
}

// A bazaar is rooms with members, and publishers who turn to one after another.
type bazaar struct {
	rooms    int
	senders  []*sender
	complete int // events that have arrived everywhere
	on       bool
}

type sender struct {
	*conn
	index   int
	room    int // of the event in flight
	sent    int // events so far; the last one's number is one less
	missing int // arrivals of that
}

// furnish connects a member of every room and some publishers to a node.
func (b *bazaar) furnish(ctx context.Context, l *loop, node *server, senders int) error {
	members, err := l.dial(ctx, node.addr, b.rooms)
	if err != nil {
		return err
	}
	for room, c := range members {
		last := make(map[int]int) // event of each publisher
		if err := c.call(fmt.Sprintf(`["join",%q]`, stall(room))); err != nil {
			return err
		}
		c.handle = func(message []byte) error {
			from, number, ok := parseEvent(message)
			if !ok || from >= len(b.senders) {
				return fmt.Errorf("member got %.200q", message)
			}
			s := b.senders[from]
			if n, before := last[from]; s.room != room || number != s.sent-1 || before && n == number {
				return fmt.Errorf("member of room %d got event %d of publisher %d, want event %d in room %d", room, number, from, s.sent-1, s.room)
			}
			last[from] = number
			b.arrived(s)
			return nil
		}
	}
	conns, err := l.dial(ctx, node.addr, senders)
	if err != nil {
		return err
	}
	for _, c := range conns {
		s := &sender{conn: c, index: len(b.senders), room: len(b.senders) * b.rooms / 64}
		b.senders = append(b.senders, s)
		c.handle = func(message []byte) error {
			number, rest, ok := cutAck(message)
			if !ok || number != s.sent-1 || !bytes.HasPrefix(rest, []byte(`[{"ok":true`)) {
				return fmt.Errorf("publisher got %.200q", message)
			}
			b.arrived(s)
			return nil
		}
	}
	return nil
}

func (b *bazaar) run(on bool) {
	b.on = on
	for _, s := range b.senders {
		b.publish(s)
	}
}

func (b *bazaar) count() int { return b.complete }

func (b *bazaar) done() bool {
	return !slices.ContainsFunc(b.senders, func(s *sender) bool { return s.missing > 0 })
}

func (b *bazaar) publish(s *sender) {
	if !b.on {
		return
	}
	s.room = (s.room + 7) % b.rooms
	s.missing = 1 + nodes
	s.send(fmt.Appendf(nil, `42%d["to",%q,"m",{"p":%d,"n":%d,"text":%q}]`, s.sent, stall(s.room), s.index, s.sent, text))
	s.sent++
}

func (b *bazaar) arrived(s *sender) {
	if s.missing--; s.missing == 0 {
		b.complete++
		b.publish(s)
	}
}

func stall(i int) string { return fmt.Sprint("stall ", i) }

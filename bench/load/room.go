package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
)

// text makes a payload of the size that chat messages have.
var text = strings.Repeat("The quick brown fox jumps over the lazy dog. ", 2)

// A room is members, and publishers outside of it who keep a window of events
// in flight to it: an event leaves the window when the last member and the
// publisher's acknowledgement have arrived. So the server always has work, and
// never so much queued for one member that it must drop it.
type room struct {
	members    []*member
	publishers []*publisher
	published  int
	delivered  int
	on         bool // publishers go on
}

type member struct {
	next []int // by publisher: the number of its next event
}

type publisher struct {
	*conn
	index   int
	sent    int   // events so far, which is the next one's number and ack id
	acked   int   // of those
	missing []int // by event number modulo window: arrivals until it is complete
}

// measureRoom counts the deliveries to a saturated room. Every event must reach
// every member once and in its publisher's order.
func measureRoom(ctx context.Context, l *loop, cl *cluster, p plan) (sample, error) {
	r := &room{}
	memberConns, err := l.dial(ctx, cl.nodes[0].addr, p.Members)
	if err != nil {
		return sample{}, err
	}
	for _, c := range memberConns {
		m := &member{next: make([]int, p.Publishers)}
		r.members = append(r.members, m)
		if err := c.call(`["join","hall"]`); err != nil {
			return sample{}, err
		}
		c.handle = func(message []byte) error { return r.deliver(m, message) }
	}
	publisherConns, err := l.dial(ctx, cl.nodes[0].addr, p.Publishers)
	if err != nil {
		return sample{}, err
	}
	for i, c := range publisherConns {
		pub := &publisher{conn: c, index: i, missing: make([]int, p.Window)}
		r.publishers = append(r.publishers, pub)
		c.handle = func(message []byte) error { return r.ack(pub, message) }
	}
	s, err := l.measure(r, cl, p)
	if want := r.published * p.Members; err == nil && r.delivered != want {
		return sample{}, fmt.Errorf("%d events to %d members: %d deliveries, want %d", r.published, p.Members, r.delivered, want)
	}
	return s, err
}

func (r *room) run(on bool) {
	r.on = on
	for _, pub := range r.publishers {
		r.publish(pub)
	}
}

func (r *room) count() int { return r.delivered }

func (r *room) done() bool {
	return !slices.ContainsFunc(r.publishers, func(pub *publisher) bool { return slices.Max(pub.missing) > 0 })
}

// publish fills pub's window.
func (r *room) publish(pub *publisher) {
	for r.on {
		missing := &pub.missing[pub.sent%len(pub.missing)]
		if *missing > 0 {
			return
		}
		*missing = len(r.members) + 1
		pub.send(fmt.Appendf(nil, `42%d["to","hall","m",{"p":%d,"n":%d,"text":%q}]`, pub.sent, pub.index, pub.sent, text))
		pub.sent++
		r.published++
	}
}

// deliver counts an event that reached m.
func (r *room) deliver(m *member, message []byte) error {
	from, number, ok := parseEvent(message)
	if !ok || from >= len(m.next) {
		return fmt.Errorf("member got %.200q", message)
	}
	if want := m.next[from]; number != want {
		return fmt.Errorf("member got event %d of publisher %d, want %d", number, from, want)
	}
	m.next[from]++
	r.delivered++
	return r.arrived(r.publishers[from], number)
}

// ack counts the server's answer to an event.
func (r *room) ack(pub *publisher, message []byte) error {
	number, rest, ok := cutAck(message)
	if !ok || !bytes.HasPrefix(rest, []byte(`[{"ok":true`)) {
		return fmt.Errorf("publisher got %.200q", message)
	}
	if number != pub.acked {
		return fmt.Errorf("publisher got the acknowledgement of event %d, want %d", number, pub.acked)
	}
	pub.acked++
	return r.arrived(pub, number)
}

func (r *room) arrived(pub *publisher, number int) error {
	if number >= pub.sent {
		return fmt.Errorf("event %d arrived, but only %d were published", number, pub.sent)
	}
	missing := &pub.missing[number%len(pub.missing)]
	*missing--
	if *missing == 0 {
		r.publish(pub)
	}
	return nil
}

// parseEvent takes apart an event as publish makes it, with or without an
// offset behind.
func parseEvent(message []byte) (from, number int, ok bool) {
	rest, ok := bytes.CutPrefix(message, []byte(`42["m",{"p":`))
	if !ok {
		return 0, 0, false
	}
	if from, rest, ok = cutInt(rest); !ok {
		return 0, 0, false
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(`,"n":`)); !ok {
		return 0, 0, false
	}
	number, _, ok = cutInt(rest)
	return from, number, ok
}

// cutAck takes the ack id off an acknowledgement.
func cutAck(message []byte) (id int, args []byte, ok bool) {
	rest, ok := bytes.CutPrefix(message, []byte("43"))
	if !ok {
		return 0, nil, false
	}
	return cutInt(rest)
}

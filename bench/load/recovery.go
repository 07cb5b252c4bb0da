package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// returnTimeout is for a whole fleet, of which some servers take one by one.
const returnTimeout = time.Minute

// A fleet is clients on the first node of a cluster, each in one room, who lose
// their connections, miss events and reconnect to another node concurrently.
type fleet struct {
	ctx       context.Context
	cl        *cluster
	p         plan
	loop      *loop
	clients   []*roamer
	published int // events in each room
	lost      []*conn
}

// A roamer is one client as the npm one is: its offset moves when it has handled
// an event, whatever that is, and it says so when it reconnects.
type roamer struct {
	*conn
	room        int
	pid, offset string
	heard       int // events, which is the next one's number
	connected   bool
	recovered   bool
}

// How the clients of a fleet lose their connections.

func cut(f *fleet) error {
	if err := f.lose(); err != nil {
		return err
	}
	f.closeLost()
	return f.loop.during(f.p.Settle / 10) // until the node has noticed
}

func cutAndBusy(f *fleet) error {
	if err := cut(f); err != nil {
		return err
	}
	return f.cl.send(f.ctx, f.cl.last(), roomNames("other room ", f.p.Rooms), 0, f.p.Others/f.p.Rooms)
}

func killed(f *fleet) error {
	if err := f.lose(); err != nil {
		return err
	}
	return f.cl.kill(0)
}

// lose leaves the connections open and silent, as a half-open connection is.
func (f *fleet) lose() error {
	for _, c := range f.clients {
		if err := f.loop.drop(c.conn); err != nil {
			return err
		}
		f.lost = append(f.lost, c.conn)
	}
	return nil
}

func (f *fleet) closeLost() {
	for _, c := range f.lost {
		c.close()
	}
	f.lost = nil
}

// measureRecovery returns a figure's measurement: what it costs the nodes that a
// fleet reconnects after lose has disconnected it.
func measureRecovery(lose func(*fleet) error) measurement {
	return func(ctx context.Context, l *loop, cl *cluster, p plan) (sample, error) {
		f := &fleet{ctx: ctx, cl: cl, p: p, loop: l}
		defer f.closeLost()
		if err := f.gather(); err != nil {
			return sample{}, err
		}
		if err := lose(f); err != nil {
			return sample{}, err
		}
		if err := f.publish(p.Missed); err != nil {
			return sample{}, err
		}
		if err := l.during(p.Settle / 5); err != nil { // the nodes have nothing left to do
			return sample{}, err
		}
		usage, redis, err := cl.metered(func() error { return f.connect(cl.nodes[cl.last()].addr) })
		if err != nil {
			return sample{}, err
		}
		if err := l.during(quiet); err != nil { // nothing comes twice
			return sample{}, err
		}
		s := sample{Of: p.Roamers, Usage: usage, Redis: redis, Value: per(usage.cpu(), p.Roamers, time.Millisecond)}
		for _, c := range f.clients {
			if c.recovered {
				s.Count++
			}
		}
		return s, nil
	}
}

// per returns each one's share of d in units.
func per(d time.Duration, n int, unit time.Duration) float64 {
	return float64(d) / float64(n) / float64(unit)
}

// recruit makes the clients.
func (f *fleet) recruit() {
	for i := range f.p.Roamers {
		f.clients = append(f.clients, &roamer{room: i % f.p.Rooms})
	}
}

// gather connects the clients to the first node, where each receives one event.
func (f *fleet) gather() error {
	f.recruit()
	if err := f.connect(f.cl.nodes[0].addr); err != nil {
		return err
	}
	joined := 0
	for _, c := range f.clients {
		c.handle = func(message []byte) error {
			if !bytes.HasPrefix(message, []byte(`430[{"ok":true`)) {
				return fmt.Errorf("client that joins got %.200q", message)
			}
			joined++
			c.handle = c.event
			return nil
		}
		c.send(fmt.Appendf(nil, `420["join",%q]`, fmt.Sprint("room ", c.room)))
	}
	if err := f.loop.until(time.Now().Add(drainTimeout), func() bool { return joined == len(f.clients) }); err != nil {
		return fmt.Errorf("%d of %d joins: %w", joined, len(f.clients), err)
	}
	if err := f.publish(1); err != nil {
		return err
	}
	return f.loop.until(time.Now().Add(drainTimeout), func() bool { return f.heard() == len(f.clients) })
}

func (f *fleet) heard() (events int) {
	for _, c := range f.clients {
		events += c.heard
	}
	return events
}

// publish has every room get n events, by publishers at the last node.
func (f *fleet) publish(n int) error {
	first := f.published
	f.published += n
	return f.cl.send(f.ctx, f.cl.last(), roomNames("room ", f.p.Rooms), first, n)
}

func roomNames(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint(prefix, i)
	}
	return names
}

// connect opens the clients' connections to a node, concurrently, and waits until
// each has its answer and, if it recovered, all that it missed.
func (f *fleet) connect(addr string) error {
	for _, c := range f.clients {
		opened, err := f.loop.open(f.ctx, addr)
		if err != nil {
			return err
		}
		c.conn, c.connected, c.recovered = opened, false, false
		c.handle = c.greet
	}
	err := f.loop.until(time.Now().Add(returnTimeout), f.complete)
	if err != nil {
		connected, recovered, events := 0, 0, 0
		for _, c := range f.clients {
			if events += c.heard; c.connected {
				connected++
			}
			if c.recovered {
				recovered++
			}
		}
		return fmt.Errorf("%d clients of %d connected, %d recovered, %d events received: %w", connected, len(f.clients), recovered, events, err)
	}
	return nil
}

// complete reports whether every client has everything that it must receive.
func (f *fleet) complete() bool {
	for _, c := range f.clients {
		if !c.connected || c.recovered && c.heard < f.published {
			return false
		}
	}
	return true
}

// greet handles what comes before a client is connected. Servers may send what
// it missed before the answer.
func (c *roamer) greet(message []byte) error {
	switch {
	case bytes.HasPrefix(message, []byte("0{")):
		connect := []byte("40")
		if c.pid != "" {
			auth, err := json.Marshal(map[string]string{"pid": c.pid, "offset": c.offset})
			if err != nil {
				return err
			}
			connect = append(connect, auth...)
		}
		c.send(connect)
		return nil
	case bytes.HasPrefix(message, []byte("40{")):
		var answer struct{ PID string }
		if err := json.Unmarshal(message[2:], &answer); err != nil {
			return err
		}
		if answer.PID == "" {
			return fmt.Errorf("no recovery is offered: %.200q", message)
		}
		c.connected, c.recovered = true, answer.PID == c.pid
		c.pid = answer.PID
		c.handle = c.event
		return nil
	}
	return c.event(message)
}

// event handles an event, whose last argument is the offset.
func (c *roamer) event(message []byte) error {
	_, number, ok := parseEvent(message)
	if !ok {
		return fmt.Errorf("client got %.200q", message)
	}
	if number != c.heard {
		return fmt.Errorf("client got event %d, want %d", number, c.heard)
	}
	c.heard++
	if offset, ok := lastString(message); ok {
		c.offset = offset
	}
	return nil
}

// lastString returns the last argument of an event if it is a string that needs
// no escapes, as offsets are.
func lastString(message []byte) (string, bool) {
	rest, ok := bytes.CutSuffix(message, []byte(`"]`))
	begin := bytes.LastIndexByte(rest, '"')
	if !ok || begin < 0 {
		return "", false
	}
	return string(rest[begin+1:]), true
}

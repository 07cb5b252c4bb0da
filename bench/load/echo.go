package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
)

// A caller keeps a window of echoes in flight. Answers must arrive in
// order, each with what was asked.
type caller struct {
	*conn
	sent, answered int
}

type callers struct {
	callers []*caller
	window  int
	on      bool // they go on asking
}

// echoed is what every call asks for and every answer must bring back.
var echoed = fmt.Appendf(nil, `[{"text":%q}]`, text)

// measureEcho counts the round trips of emits with an acknowledgement.
func measureEcho(ctx context.Context, l *loop, cl *cluster, p plan) (sample, error) {
	conns, err := l.dial(ctx, cl.nodes[0].addr, p.Callers)
	if err != nil {
		return sample{}, err
	}
	all := &callers{window: p.Window}
	for _, conn := range conns {
		c := &caller{conn: conn}
		all.callers = append(all.callers, c)
		conn.handle = func(message []byte) error { return all.answer(c, message) }
	}
	return l.measure(all, cl, p)
}

func (a *callers) run(on bool) {
	a.on = on
	for _, c := range a.callers {
		a.ask(c)
	}
}

func (a *callers) count() (answered int) {
	for _, c := range a.callers {
		answered += c.answered
	}
	return answered
}

func (a *callers) done() bool {
	return !slices.ContainsFunc(a.callers, func(c *caller) bool { return c.answered < c.sent })
}

// ask fills c's window.
func (a *callers) ask(c *caller) {
	for a.on && c.sent-c.answered < a.window {
		c.send(append(fmt.Appendf(nil, `42%d["echo",`, c.sent), echoed[1:]...))
		c.sent++
	}
}

func (a *callers) answer(c *caller, message []byte) error {
	id, args, ok := cutAck(message)
	if !ok || !bytes.Equal(args, echoed) {
		return fmt.Errorf("caller got %.200q", message)
	}
	if id != c.answered || id >= c.sent {
		return fmt.Errorf("caller got answer %d, want %d of %d", id, c.answered, c.sent)
	}
	c.answered++
	a.ask(c)
	return nil
}

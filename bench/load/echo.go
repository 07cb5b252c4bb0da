package main

import (
	"bytes"
	"context"
	"fmt"
	"time"
)

// A caller keeps a window of echoes in flight. Answers must come back in
// order, each with what was asked.
type caller struct {
	*conn
	sent, answered int
}

type callers struct {
	callers []*caller
	window  int
	open    bool // they go on asking
}

// echoed is what every call asks for and every answer must bring back.
var echoed = fmt.Appendf(nil, `[{"text":%q}]`, text)

// measureEcho counts the round trips of emits with an acknowledgement.
func measureEcho(ctx context.Context, s *server, p plan) (sample, error) {
	l, err := newLoop()
	if err != nil {
		return sample{}, err
	}
	defer l.close()
	conns, err := l.dial(ctx, s.addr, p.Callers)
	if err != nil {
		return sample{}, err
	}
	all := &callers{window: p.Window}
	for _, conn := range conns {
		c := &caller{conn: conn}
		all.callers = append(all.callers, c)
		conn.handle = func(message []byte) error { return all.answer(c, message) }
	}

	if err := all.saturate(l, p.Warmup); err != nil {
		return sample{}, err
	}
	answered, bytes := all.answered(), l.bytes()
	usage, err := metered(s, func() error { return all.saturate(l, p.Measured) })
	if err != nil {
		return sample{}, err
	}
	if err := l.during(quiet); err != nil {
		return sample{}, err
	}
	answered, bytes = all.answered()-answered, l.bytes()-bytes
	return sample{
		Value: float64(answered) / usage.cpu().Seconds(),
		Count: answered,
		Bytes: float64(bytes) / float64(answered),
		Usage: usage,
	}, nil
}

// saturate asks for d and then waits for the last answers.
func (a *callers) saturate(l *loop, d time.Duration) error {
	a.open = true
	for _, c := range a.callers {
		a.ask(c)
	}
	if err := l.during(d); err != nil {
		return err
	}
	a.open = false
	if err := l.until(time.Now().Add(drainTimeout), a.complete); err != nil {
		return fmt.Errorf("%d answers, some missing: %w", a.answered(), err)
	}
	return nil
}

func (a *callers) answered() int {
	var sum int
	for _, c := range a.callers {
		sum += c.answered
	}
	return sum
}

func (a *callers) complete() bool {
	for _, c := range a.callers {
		if c.answered < c.sent {
			return false
		}
	}
	return true
}

// ask fills c's window.
func (a *callers) ask(c *caller) {
	for a.open && c.sent-c.answered < a.window {
		c.send(append(fmt.Appendf(nil, `42%d["echo",`, c.sent), echoed[1:]...))
		c.sent++
	}
}

func (a *callers) answer(c *caller, message []byte) error {
	id, args, ok := cutAck(message)
	if !ok || !bytes.Equal(args, echoed) {
		return fmt.Errorf("a caller got %.200q", message)
	}
	if id != c.answered || id >= c.sent {
		return fmt.Errorf("a caller got answer %d, want %d of %d", id, c.answered, c.sent)
	}
	c.answered++
	a.ask(c)
	return nil
}

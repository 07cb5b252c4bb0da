package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// measureCatchUp cuts the subscribers of both nodes, when one of them is subscribed
// to many rooms, and counts the commands that Redis executes until an event is
// delivered again.
func measureCatchUp(ctx context.Context, l *loop, cl *cluster, p plan) (sample, error) {
	const each = 50 // rooms of one client
	conns, err := l.dial(ctx, cl.nodes[0].addr, (p.Heard+each-1)/each)
	if err != nil {
		return sample{}, err
	}
	heard := 0
	for i, c := range conns {
		var names []string
		for room := i * each; room < min((i+1)*each, p.Heard); room++ {
			names = append(names, strconv.Quote(stall(room)))
		}
		if err := c.call(`["join",[` + strings.Join(names, ",") + `]]`); err != nil {
			return sample{}, err
		}
		c.handle = func(message []byte) error {
			if _, _, ok := parseEvent(message); !ok {
				return fmt.Errorf("client got %.200q", message)
			}
			heard++
			return nil
		}
	}
	publishers, err := l.dial(ctx, cl.nodes[1].addr, 1) // now: a node that catches up takes nobody in
	if err != nil {
		return sample{}, err
	}
	publishers[0].handle = func([]byte) error { return nil } // the acknowledgement
	if err := l.during(p.Settle / 5); err != nil {
		return sample{}, err
	}
	if _, err := cl.redis.ask("CONFIG", "RESETSTAT"); err != nil {
		return sample{}, err
	}
	usage, redis, err := cl.metered(func() error {
		if _, err := cl.redis.ask("CLIENT", "KILL", "TYPE", "pubsub"); err != nil {
			return err
		}
		publishers[0].send(fmt.Appendf(nil, `420["to",%q,"m",{"p":0,"n":0,"text":%q}]`, stall(0), text))
		return l.until(time.Now().Add(drainTimeout), func() bool { return heard == 1 })
	})
	if err != nil {
		return sample{}, err
	}
	info, err := cl.redis.ask("INFO", "commandstats")
	if err != nil {
		return sample{}, err
	}
	calls := commands(info)
	return sample{Count: p.Heard, Of: p.Heard, Usage: usage, Redis: redis, Value: float64(calls["subscribe"] + calls["xrange"] + calls["ssubscribe"])}, nil
}

var commandCalls = regexp.MustCompile(`cmdstat_([a-z|_-]+):calls=(\d+)`)

// commands reads how often each command was called.
func commands(info string) map[string]int {
	calls := make(map[string]int)
	for _, m := range commandCalls.FindAllStringSubmatch(info, -1) {
		calls[m[1]], _ = strconv.Atoi(m[2]) // digits
	}
	return calls
}

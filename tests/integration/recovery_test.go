package integration

import (
	"fmt"
	"testing"
)

// A cut is a way to lose a connection. gone disconnects the client, which
// misses the following events, and back lets it reconnect.
type cut struct {
	gone func(c *cutting)
	back func(c *cutting)
}

type cutting struct {
	t      *testing.T
	node   *node
	relay  *relay
	driver *driver // of the client that is cut
}

var cuts = map[string]cut{
	"reset": {
		gone: func(c *cutting) { c.relay.down() },
		back: func(c *cutting) { c.relay.up() },
	},
	"half-open": {
		gone: func(c *cutting) { c.relay.shut(); c.relay.halfOpen() },
		back: func(c *cutting) { c.relay.up() },
	},
	"client closes": {
		gone: func(c *cutting) { c.relay.shut(); c.driver.socket("s").must("cut", nil) },
		back: func(c *cutting) { c.relay.up() },
	},
	"process suspended": {
		gone: func(c *cutting) {
			c.driver.suspend()
			eventually(c.t, "the node has not noticed", func() error {
				if sum(c.node.metrics(), "rejoin_disconnects_total", `reason="ping timeout"`) == 0 {
					return fmt.Errorf("no ping timeout")
				}
				return nil
			})
		},
		back: func(c *cutting) { c.driver.resume() },
	},
}

// TestRecovery: however the connection is lost, the newest client reconnects as
// the same socket and gets the missed events, once and in order. The first
// version does not support recovery: it reconnects as a new socket and works.
func TestRecovery(t *testing.T) {
	t.Parallel()
	for name, cut := range cuts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, version := range versions {
				for _, transport := range []string{"websocket", "polling"} {
					t.Run(version+" "+transport, func(t *testing.T) { testRecovery(t, cut, version, transport) })
				}
			}
		})
	}
}

func testRecovery(t *testing.T, cut cut, version, transport string) {
	// Short enough for the suspended process, long enough for a busy machine.
	n := startNode(t, "REJOIN_PING_INTERVAL=1s", "REJOIN_PING_TIMEOUT=2s")
	others := startDriver(t)
	publisher := others.open("publisher", newest, n.url(), transports["websocket"])
	c := &cutting{t: t, node: n, relay: startRelay(t, n), driver: startDriver(t)}
	s := c.driver.open("s", version, c.relay.url(), transports[transport])
	before := s.state()
	s.call("join", "lobby")
	publisher.call("to", "lobby", "first")
	s.hears("first")

	cut.gone(c)
	for i := range 10 {
		publisher.call("to", "lobby", "missed", i)
		publisher.call("to", "elsewhere", "not for you", i)
	}
	publisher.call("private", before.ID, "missed in private", bytesArg("c0ffee"))
	cut.back(c)

	s.await("disconnect")
	now := s.await("connect")
	if version == oldest {
		if now.Recovered || now.ID == before.ID {
			t.Errorf("%s claims to have recovered: %+v", version, now)
		}
		s.call("join", "lobby")
	} else {
		if !now.Recovered || now.ID != before.ID {
			t.Errorf("not recovered: before %+v, now %+v", before, now)
		}
		for i := range 10 {
			s.hears("missed", fmt.Sprint(i))
		}
		s.hears("missed in private", `{"$bytes":"c0ffee"}`)
	}
	publisher.call("to", "lobby", "live")
	s.hears("live")
	s.call("self", "own")
	s.hears("own")
}

// TestOwnEventsAreRecovered: events to a single socket are replayed too.
func TestOwnEventsAreRecovered(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	r := startRelay(t, n)
	d := startDriver(t)
	s := d.open("s", newest, r.url(), transports["websocket"])
	s.call("self", "n", 0)
	s.hears("n", "0")
	r.shut()
	r.deafen()
	for i := 1; i <= 5; i++ {
		s.emit("self", "n", i)
	}
	eventually(t, "the node has not sent the events", func() error {
		if got := sum(n.metrics(), "rejoin_deliveries_total"); got < 6 {
			return fmt.Errorf("%v deliveries", got)
		}
		return nil
	})
	r.up()
	r.cut()
	if now := s.await("connect"); !now.Recovered {
		t.Error("not recovered")
	}
	for i := 1; i <= 5; i++ {
		s.hears("n", fmt.Sprint(i))
	}
}

// TestCutAfterEveryFrame cuts the stock client in the middle of a replay of 50
// events, at every place: after CONNECT and each number of events. It gets each
// event once.
func TestCutAfterEveryFrame(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	r := startRelay(t, n)
	d := startDriver(t)
	publisher := d.open("publisher", newest, n.url(), transports["websocket"])
	const missed = 50
	for k := range missed + 2 {
		room := fmt.Sprint("room ", k)
		s := d.open(room, newest, r.url(), transports["websocket"])
		s.call("join", room)
		publisher.call("to", room, "first")
		s.hears("first")
		r.down()
		for i := range missed {
			publisher.call("to", room, "missed", i)
		}
		r.cutNext(1 + k) // the handshake's frame comes before
		r.up()
		if k > 0 && !s.await("connect").Recovered {
			t.Errorf("cut after %d frames: not recovered the first time", k)
		}
		if !s.await("connect").Recovered {
			t.Errorf("cut after %d frames: not recovered the second time", k)
		}
		publisher.call("to", room, "last")
		for i := range missed {
			s.hears("missed", fmt.Sprint(i))
		}
		s.hears("last")
		s.call("self", "end")
		s.hears("end")
		s.must("disconnect", nil)
	}
}

package engineio

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A tape is the wire of a WebSocket. It records written data with the time.
type tape struct {
	script
	c     *Conn
	begun time.Time
	said  []string
}

func (t *tape) Write(frame []byte) (int, error) {
	text := string(frame[2:])
	if cause := t.c.cause(); cause != nil {
		text = string(cause.Reason)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.said = append(t.said, fmt.Sprintf("%v %s", time.Since(t.begun).Round(time.Second), text))
	return len(frame), nil
}

// onTape runs a script against a connection with the default times, in synthetic time, and
// compares the written data.
func onTape(t *testing.T, script func(c *Conn), want ...string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := NewServer(Options{}, func(c *Conn) { <-c.Context().Done() })
		if err != nil {
			t.Fatal(err)
		}
		c := newConn(s, "tape", &Handshake{Time: time.Now()})
		wire := &tape{c: c, begun: time.Now()}
		c.ws = &websocketTransport{c: c, wire: wire}
		if !s.begin(c, new(request)) {
			t.Fatal("not admitted")
		}
		script(c)
		synctest.Wait()
		wire.mu.Lock()
		said := slices.Clone(wire.said[1:]) // without the handshake
		wire.mu.Unlock()
		if !slices.Equal(said, want) {
			t.Errorf("said %q, want %q", said, want)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// Section 1.6 of the protocol.
func TestHeartbeat(t *testing.T) {
	t.Run("a client that answers", func(t *testing.T) {
		onTape(t, func(c *Conn) {
			opened := c.Alive()
			after(30 * time.Second)
			if !c.Alive().Equal(opened) {
				t.Error("alive before it answered")
			}
			c.hear(typePong, 1, nil) // at 30 s
			if got := c.Alive().Sub(opened); got != 30*time.Second {
				t.Errorf("alive at %v, want %v", got, 30*time.Second)
			}
			after(30 * time.Second)
			c.hear(typePong, 1, nil) // at 60 s
			after(29 * time.Second)
		}, "25s 2", "55s 2", "1m25s 2")
	})
	t.Run("a client that is silent", func(t *testing.T) {
		onTape(t, func(*Conn) { after(time.Hour) }, "25s 2", "45s ping timeout")
	})
	t.Run("other packets put the timeout off, as long as they come", func(t *testing.T) {
		onTape(t, func(c *Conn) {
			after(40 * time.Second)
			c.hear(typeMessage, 1, nil) // so that the answer is awaited until 60 s
			after(19 * time.Second)
			c.heart.hears() // a part of a message; until 79 s
			after(time.Hour)
		}, "25s 2", "50s 2", "1m15s 2", "1m19s ping timeout")
	})
	t.Run("silence counts from the last packet", func(t *testing.T) {
		onTape(t, func(c *Conn) {
			after(26 * time.Second)
			c.hear(typeMessage, 1, nil)
			after(time.Hour)
		}, "25s 2", "46s ping timeout")
	})
	t.Run("after a pause as often as they come", func(t *testing.T) {
		onTape(t, func(c *Conn) {
			after(30 * time.Second)
			c.Pause()
			after(10 * time.Second)
			c.Resume() // at 40 s; the pong is behind unread data
			for range 3 {
				after(15 * time.Second)
				c.hear(typeMessage, 1, nil)
			}
			c.hear(typePong, 1, nil) // at 85 s
			after(40 * time.Second)
			c.hear(typeMessage, 1, nil)
			after(10 * time.Second)
			c.hear(typeMessage, 1, nil)
			after(time.Hour)
		}, "25s 2", "50s 2", "1m15s 2", "1m40s 2", "2m0s ping timeout")
	})
	t.Run("and once more with the next ping", func(t *testing.T) {
		onTape(t, func(c *Conn) {
			after(40 * time.Second)
			c.hear(typeMessage, 1, nil)
			after(10 * time.Second)
			c.hear(typePong, 1, nil) // at 50 s
			after(40 * time.Second)
			c.hear(typeMessage, 1, nil) // at 90 s
			after(time.Hour)
		}, "25s 2", "50s 2", "1m15s 2", "1m40s 2", "1m50s ping timeout")
	})
	t.Run("packets before a ping change nothing, nor does a pong that nobody asked for", func(t *testing.T) {
		onTape(t, func(c *Conn) {
			after(20 * time.Second)
			c.hear(typeMessage, 1, nil)
			c.hear(typePong, 1, nil)
			after(20 * time.Second)
		}, "25s 2")
	})
	t.Run("the silence of a paused connection does not count", func(t *testing.T) {
		onTape(t, func(c *Conn) {
			after(30 * time.Second)
			c.Pause()
			after(60 * time.Second)
			c.Resume() // at 90 s
			after(10 * time.Second)
			c.hear(typePong, 1, nil)
			after(15 * time.Second)
		}, "25s 2", "45s 2", "1m5s 2", "1m25s 2", "1m50s 2")
	})
	t.Run("a client that is silent after a pause", func(t *testing.T) {
		onTape(t, func(c *Conn) {
			after(30 * time.Second)
			c.Pause()
			after(10 * time.Second)
			c.Resume() // at 40 s
			after(time.Hour)
		}, "25s 2", "50s 2", "1m0s ping timeout")
	})
	t.Run("a pause without end", func(t *testing.T) {
		onTape(t, func(c *Conn) {
			after(30 * time.Second)
			c.Pause()
			after(time.Hour)
			if !errors.Is(c.cause(), ErrPaused) {
				t.Errorf("closed by %v, want ErrPaused", c.cause())
			}
		}, "25s 2", "45s 2", "1m5s 2", "1m25s 2", "1m45s 2", "2m5s 2", "2m25s 2", "2m45s transport error")
	})
	t.Run("pauses that follow each other", func(t *testing.T) {
		onTape(t, func(c *Conn) {
			after(30 * time.Second)
			for range 10 { // the answers are behind unread data
				c.Pause()
				after(10 * time.Second)
				c.Resume()
				c.hear(typeMessage, 1, nil)
			}
			c.hear(typePong, 1, nil) // to the first ping, at 130 s
			after(10 * time.Second)
			c.hear(typePong, 1, nil)
			after(30 * time.Second)
		}, "25s 2", "50s 2", "1m15s 2", "1m40s 2", "2m5s 2", "2m30s 2", "2m50s ping timeout")
	})
	t.Run("a closed connection is not pinged", func(t *testing.T) {
		onTape(t, func(c *Conn) {
			after(10 * time.Second)
			_ = c.Close(ForcedClose)
			after(time.Hour)
			c.expire() // as if it had been in flight
		}, "10s forced close")
	})
}

// A timer whose firing was overtaken by a pong must not close the connection.
func TestHeartbeatTimerOvertakenByAPong(t *testing.T) {
	onTape(t, func(c *Conn) {
		after(44 * time.Second)
		c.hear(typePong, 1, nil)
		c.expire() // as if it had been in flight
		after(time.Second)
	}, "25s 2")
}

func TestClosedSessionIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := NewServer(Options{}, func(c *Conn) { <-c.Context().Done() })
		if err != nil {
			t.Fatal(err)
		}
		c := newConn(s, "id", &Handshake{})
		c.polling = newPollingTransport(c)
		var ended atomic.Bool
		s.begin(c, &request{ended: func() { ended.Store(true) }})
		_ = c.Close(ForcedClose)
		after(29 * time.Second)
		if s.lookup("id") == nil {
			t.Error("forgotten before a poll could fetch the close")
		}
		if ended.Load() {
			t.Error("its memory is held, and Admit does not count it")
		}
		after(2 * time.Second)
		if s.lookup("id") != nil || s.Stats().QueuedBytes != 0 || !ended.Load() {
			t.Error("not forgotten")
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestHeartbeatByPolling(t *testing.T) {
	t.Parallel() // it waits
	b := setUp(t, Options{PingInterval: 50 * time.Millisecond, PingTimeout: time.Second})
	sid := b.open()
	for range 3 {
		if got := b.poll(sid); got != "2" {
			t.Fatalf(`polled %q, want "2"`, got)
		}
		b.post(sid, "3")
	}
	b.poll(sid)
	if got := b.poll(sid); got != "1" { // the ping was not answered
		t.Errorf(`polled %q, want "1"`, got)
	}
	b.endsBy(PingTimeout)
	b.unknown(sid)
}

func TestHeartbeatByWebSocket(t *testing.T) {
	t.Parallel() // it waits
	b := setUp(t, Options{PingInterval: 50 * time.Millisecond, PingTimeout: time.Second})
	ws, _ := b.dialOpen()
	for range 3 {
		if got := b.read(ws); got != "2" {
			t.Fatalf(`read %q, want "2"`, got)
		}
		b.write(ws, "3")
	}
	if code := b.closedWith(ws); code != 1005 {
		t.Errorf("closed with %d, want 1005", code)
	}
	b.endsBy(PingTimeout)
}

// A ping was sent by polling, and its answer may be lost with that transport. The ping is
// sent again with its full timeout.
func TestUpgradeRepeatsAPing(t *testing.T) {
	b := setUp(t, Options{PingInterval: 300 * time.Millisecond, PingTimeout: time.Minute})
	sid := b.open()
	if got := b.poll(sid); got != "2" {
		t.Fatalf(`polled %q, want "2"`, got)
	}
	ws := b.upgrade(sid)
	if got := b.read(ws); got != "2" {
		t.Errorf(`read %q, want "2"`, got)
	}
	b.write(ws, "3")
	b.write(ws, "3") // and the answer to the first, which is late
	if got := b.read(ws); got != "2" {
		t.Errorf(`read %q, want "2"`, got)
	}
}

// The client counts from its handshake, so an upgrade must not postpone a ping.
func TestUpgradeDoesNotPutOffThePing(t *testing.T) {
	b := setUp(t, Options{PingInterval: time.Hour})
	sid := b.open()
	c := receive(t, b.conns)
	c.mu.Lock()
	before := c.heart.due
	c.mu.Unlock()
	b.upgrade(sid)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.heart.due.Equal(before) {
		t.Errorf("due %v later", c.heart.due.Sub(before))
	}
}

// The timers of many connections fire together, never early and at most a tick late.
func TestTimersFireTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		moments := make(map[time.Time]bool)
		for range 1000 {
			time.Sleep(time.Millisecond)
			now := time.Now()
			d := untilTick(now, 25*time.Second)
			if late := d - 25*time.Second; late < 0 || late >= 100*time.Millisecond {
				t.Errorf("fires %v late, want at least 0, less than %v", late, 100*time.Millisecond)
			}
			moments[now.Add(d)] = true
		}
		if n := len(moments); n > 11 {
			t.Errorf("1000 timers set within a second fire at %d moments, want at most 11", n)
		}
	})
	if d := untilTick(time.Now(), time.Millisecond); d < time.Millisecond || d >= 2*time.Millisecond {
		t.Errorf("a short one takes %v, want at least %v, less than %v", d, time.Millisecond, 2*time.Millisecond)
	}
}

// A pause counts as a sign of life, but not as an answer: the client may have gone before it.
func TestAPauseIsNoAnswer(t *testing.T) {
	b := setUp(t, Options{})
	b.open()
	c := receive(t, b.conns)
	answered := c.Answered()
	c.Pause()
	c.Resume()
	if got := c.Answered(); !got.Equal(answered) {
		t.Errorf("answered at %v, want %v", got, answered)
	}
	if !c.Alive().After(answered) {
		t.Error("the pause does not count as a sign of life")
	}
}

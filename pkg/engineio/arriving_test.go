package engineio

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// incomplete sends the beginning of a text message of a million bytes on a WebSocket.
func incomplete(wire net.Conn, bytes int) {
	fmt.Fprint(wire, "\x81\xff\x00\x00\x00\x00\x00\x0f\x42\x3f\x00\x00\x00\x004"+strings.Repeat("x", bytes-1))
}

func givenUp(c *Conn) bool {
	cause := c.cause()
	return cause != nil && errors.Is(cause, ErrReceiveBudget)
}

// Messages and bodies whose end does not arrive have a common budget. Those that have paused are given
// up first, and then the largest.
func TestIncompleteMessagesHaveABudget(t *testing.T) {
	b := setUp(t, Options{ReceiveBudget: 1 << 20, MaxPayload: 1_000_000, PingInterval: time.Minute})
	receiving := func(n int64) {
		t.Helper()
		b.until(func() bool { return b.Stats().ReceivingBytes == n })
	}
	var conns []*Conn
	dial := func(bytes int) *Conn {
		wire, c := b.dialStalled()
		incomplete(wire, bytes)
		conns = append(conns, c)
		return c
	}
	small := dial(smallArrival / 2)
	paused := dial(200 << 10)
	receiving(256 << 10)
	b.until(func() bool { // it has paused
		b.arriving.mu.Lock()
		defer b.arriving.mu.Unlock()
		for a := range b.arriving.open {
			return time.Since(time.Unix(0, a.moved.Load())) > arrivalPatience
		}
		return false
	})
	sid := b.open()
	posting := receive(t, b.conns)
	body := b.wire(fmt.Sprintf("POST /engine.io/?EIO=4&transport=polling&sid=%s HTTP/1.1\nHost: h\nContent-Length: 999999\n\n4%s", sid, strings.Repeat("y", 400<<10)))
	receiving(256<<10 + 512<<10)
	medium := dial(200 << 10)
	receiving(1 << 20)
	if b.Stats().ReceiveCuts != 0 {
		t.Fatal("one is given up within the budget")
	}
	last := dial(100 << 10)
	receiving(512<<10 + 256<<10 + 128<<10)
	if !givenUp(paused) || givenUp(posting) || givenUp(medium) || givenUp(last) || b.Stats().ReceiveCuts != 1 {
		t.Errorf("given up: %v, %v, %v, %v; not only the one that has paused", givenUp(paused), givenUp(posting), givenUp(medium), givenUp(last))
	}
	b.until(func() bool { // the others have paused, too
		b.arriving.mu.Lock()
		defer b.arriving.mu.Unlock()
		for a := range b.arriving.open {
			if time.Since(time.Unix(0, a.moved.Load())) <= arrivalPatience {
				return false
			}
		}
		return true
	})
	another := dial(200 << 10)
	receiving(256<<10 + 128<<10 + 256<<10)
	b.until(func() bool { return givenUp(posting) })
	if givenUp(medium) || givenUp(last) || givenUp(another) || givenUp(small) || b.Stats().ReceiveCuts != 2 {
		t.Errorf("given up: %v, %v, %v, %v; not the largest that has paused", givenUp(medium), givenUp(last), givenUp(another), givenUp(small))
	}
	answer := make([]byte, 1000)
	_ = body.SetReadDeadline(time.Now().Add(patience))
	if n, err := body.Read(answer); err != nil || !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 400") {
		t.Errorf("the answer to the body is %q, %v", answer[:n], err)
	}
	for _, c := range conns {
		_ = c.Close(ForcedClose)
	}
	receiving(0)
}

// A message that is larger than everything that is incomplete may take is given up itself, and one that
// is complete counts no longer.
func TestTheIncompleteMessageItselfIsGivenUp(t *testing.T) {
	b := setUp(t, Options{ReceiveBudget: 100_000, MaxPayload: 1_000_000})
	ws, _ := b.dialOpen()
	for range 3 { // each has its turn
		b.write(ws, "4"+strings.Repeat("x", 50_000))
		if m := receive(t, b.got); len(m.Data) != 50_000 {
			t.Fatalf("%d bytes arrive", len(m.Data))
		}
	}
	wire, other := b.dialStalled()
	incomplete(wire, 200_000)
	b.until(func() bool { return givenUp(other) })
	b.until(func() bool { return b.Stats().ReceivingBytes == 0 })
	b.write(ws, "4still there")
	b.gets("still there", false)
}

// Of messages that arrive as fast as others, those that have begun last are given up, so that there is
// space for the others to end. One that trickles gives way to them.
func TestTheFirstMessagesEnd(t *testing.T) {
	b := setUp(t, Options{ReceiveBudget: 1 << 20, MaxPayload: 1_000_000, PingInterval: time.Minute})
	type upload struct {
		wire net.Conn
		c    *Conn
		rest int
	}
	trickle, slow := b.dialStalled()
	incomplete(trickle, 300<<10)
	b.until(func() bool { return b.Stats().ReceivingBytes == 512<<10 })
	b.until(func() bool {
		_, _ = trickle.Write([]byte("x"))
		b.arriving.mu.Lock()
		defer b.arriving.mu.Unlock()
		for a := range b.arriving.open {
			return time.Since(time.Unix(0, a.moved.Load())) > arrivalPatience
		}
		return false
	})
	var all []*upload
	for i := range 6 {
		wire, c := b.dialStalled()
		incomplete(wire, smallArrival+1)
		all = append(all, &upload{wire, c, 300 << 10})
		b.until(func() bool { // it has begun
			b.arriving.mu.Lock()
			defer b.arriving.mu.Unlock()
			return len(b.arriving.open) == i+2
		})
	}
	const part = 20 << 10
	chunk := strings.Repeat("x", part)
	for i := 0; len(all) > 0 && i < 200; i++ {
		for _, u := range all {
			_, _ = u.wire.Write([]byte(chunk)) // it may have been given up
			u.rest -= part
		}
		time.Sleep(20 * time.Millisecond) // as on a line of a megabyte in a second
		if all[0].rest <= 0 {
			break
		}
	}
	b.until(func() bool { return givenUp(slow) })
	for i, u := range all {
		if i < 2 && givenUp(u.c) {
			t.Errorf("upload %d is given up", i)
		}
		if i == 5 && !givenUp(u.c) {
			t.Error("the last one is not given up")
		}
	}
}

package limit

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// allowed sends n events and returns how many may.
func allowed(e *Events, n int, user, socket string, bytes int) (yes int) {
	for range n {
		switch err := e.Allow(user, socket, bytes); {
		case err == nil:
			yes++
		case !errors.As(err, new(*ExceededError)):
			panic(err)
		}
	}
	return yes
}

func TestEventRates(t *testing.T) {
	for _, test := range []struct {
		name                   string
		o                      EventOptions
		bytes                  int
		first, same, other, on int // what one socket, it again, another of the user and one of nobody may of 100
	}{
		{SocketEventRate, EventOptions{SocketEvents: 10}, 5, 10, 0, 10, 10},
		{SocketByteRate, EventOptions{SocketBytes: 1000}, 50, 20, 0, 20, 20},
		{UserEventRate, EventOptions{UserEvents: 10}, 5, 10, 0, 0, 100},
		{UserByteRate, EventOptions{UserBytes: 1000}, 50, 20, 0, 0, 100},
		{"", EventOptions{}, 1 << 20, 100, 100, 100, 100},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := NewEvents(test.o)
				first, same := allowed(e, 100, "ann", "a", test.bytes), allowed(e, 100, "ann", "a", test.bytes)
				other, on := allowed(e, 100, "ann", "b", test.bytes), allowed(e, 100, "", "c", test.bytes)
				if first != test.first || same != test.same || other != test.other || on != test.on {
					t.Errorf("%d, %d, %d, %d", first, same, other, on)
				}
				if n := e.Refused()[test.name]; test.name != "" && n != uint64(400-first-same-other-on) {
					t.Errorf("%d are counted", n)
				}
				time.Sleep(time.Second)
				if again := allowed(e, 100, "ann", "a", test.bytes); again != test.first {
					t.Errorf("%d a second later", again)
				}
			})
		})
	}
}

// The largest event comes through however small the rate, and takes its time.
func TestTheLargestEventComesThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := NewEvents(EventOptions{SocketBytes: 100, LargestEvent: 1000})
		if allowed(e, 2, "", "a", 1200) != 1 {
			t.Error("not once")
		}
		time.Sleep(time.Second)
		if allowed(e, 2, "", "a", 100) != 1 {
			t.Error("what is left is not a second's worth")
		}
		time.Sleep(9 * time.Second)
		if allowed(e, 2, "", "a", 1000) != 0 {
			t.Error("too soon")
		}
	})
}

// Sockets that are gone, or silent, are not remembered.
func TestTablesStaySmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := NewEvents(EventOptions{SocketEvents: 10})
		h := NewHandshakes(HandshakeOptions{IPRate: 10})
		for i := range 20_000 {
			allowed(e, 1, "", fmt.Sprint(i), 1)
			admitted(h, 1, fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff))
			if i%100 == 99 {
				time.Sleep(time.Second)
			}
		}
		if n := len(e.sockets.states.entries); n > 2*leastSweep {
			t.Errorf("%d sockets", n)
		}
	})
}

package limit

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// TestCopyRate: events to several rooms or to new ones cannot exceed the rate of copies of
// their user or address.
func TestCopyRate(t *testing.T) {
	const rate = 64 << 10
	for _, user := range []string{"ann", ""} {
		for _, test := range []struct {
			name                              string
			rooms, bytes, strangers, newRooms int
			cost                              int
		}{
			{"several rooms", 5, 1000, 0, 0, 4 * (1000 + copyCost)},
			{"several rooms of others", 5, 1000, 5, 0, 4 * (1000 + copyCost)},
			{"a made-up room", 1, 1000, 1, 1, newRoomCost},
			{"made-up rooms", 20, 10, 20, 20, 19*(10+copyCost) + 20*newRoomCost},
		} {
			t.Run(user+test.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					core, logs := observer.New(zap.InfoLevel)
					all := NewClients(ClientOptions{CopyBytes: rate, Tally: NewTally(zap.New(core))})
					send := func(c *Client) bool {
						k, err := c.Copy(test.rooms, test.bytes, test.strangers)
						if err != nil && !errors.As(err, new(*ExceededError)) {
							t.Fatal(err)
						}
						k.Done(test.newRooms)
						return err == nil
					}
					sent := 0
					for ; send(all.Client(user, "192.0.2.1:1")); sent++ { // a new connection each time
					}
					reserved := (test.rooms-1)*(test.bytes+copyCost) + test.strangers*newRoomCost
					if most, least := rate*burst/test.cost, (rate*burst-reserved)/test.cost; sent > most || sent < least {
						t.Errorf("got %d in a burst, want %d to %d", sent, least, most)
					}
					if send(all.Client(user, "192.0.2.1:2")) {
						t.Error("another socket may")
					}
					if n := all.tally.Refused()[CopyRate]; n != 2 {
						t.Errorf("%d are counted, want 2", n)
					}
					if logged := logs.All(); len(logged) != 1 || logged[0].ContextMap()["limit"] != CopyRate {
						t.Errorf("logged %v", logged)
					}
					if !send(all.Client(user+"x", "192.0.2.2:1")) {
						t.Error("another client may not")
					}
					time.Sleep(10 * time.Second)
					if !send(all.Client(user, "192.0.2.1:1")) {
						t.Error("not ten seconds later")
					}
				})
			})
		}
	}
}

// TestCopiesOfOneEvent: the copies of one event are bounded by the largest event, and an
// event to a room of its sender costs nothing.
func TestCopiesOfOneEvent(t *testing.T) {
	c := NewClients(ClientOptions{CopyBytes: 100, LargestEvent: 1000}).Client("ann", "")
	if _, err := c.Copy(10, 101, 0); !errors.As(err, new(*TooManyCopiesError)) {
		t.Errorf("101 bytes to 10 rooms: %v", err)
	}
	for range 100_000 {
		if k, err := c.Copy(1, 1000, 0); err != nil {
			t.Fatal(err)
		} else {
			k.Done(0)
		}
	}
	off := NewClients(ClientOptions{}).Client("ann", "")
	for range 1000 {
		if k, err := off.Copy(1000, 1000, 1000); err != nil {
			t.Fatal(err)
		} else {
			k.Done(1000)
		}
		if err := off.Join(1000); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCopiesToManyRoomsInARow: two events to rooms of others can pass concurrently while it
// is unknown whether the rooms are new, and three cannot.
func TestCopiesToManyRoomsInARow(t *testing.T) {
	c := NewClients(ClientOptions{CopyBytes: 512 << 10, LargestEvent: 1_000_000}).Client("ann", "")
	var sent []Copies
	for i := range 2 {
		k, err := c.Copy(1000, 100, 1000)
		if err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
		sent = append(sent, k)
	}
	if _, err := c.Copy(1000, 100, 1000); err == nil {
		t.Error("a third event passes before the new rooms of the first two are known")
	}
	for _, k := range sent {
		k.Done(0)
	}
	if _, err := c.Copy(1000, 100, 1000); err != nil {
		t.Errorf("after these: %v", err)
	}
	for n := 0; ; n++ {
		if k, err := c.Copy(1000, 100, 1000); err != nil {
			break
		} else if k.Done(1000); n == 10 {
			t.Fatal("new rooms are not counted")
		}
	}
}

// TestJoinsLogWithoutTheLock: the log line about the limit is written without the lock of the
// user.
func TestJoinsLogWithoutTheLock(t *testing.T) {
	var c *Client
	hook := zap.Hooks(func(zapcore.Entry) error {
		if !c.held.Load().mu.TryLock() {
			t.Error("it is logged under the lock of the user")
			return nil
		}
		c.held.Load().mu.Unlock()
		return nil
	})
	core, logs := observer.New(zap.InfoLevel)
	c = NewClients(ClientOptions{CopyBytes: 1, Tally: NewTally(zap.New(core, hook))}).Client("ann", "")
	for range 20 {
		_ = c.Join(1000)
	}
	if logs.Len() != 1 {
		t.Errorf("got %d lines, want 1", logs.Len())
	}
}

// TestJoinsHaveTheRateOfCopies: joins of many rooms are limited by user or address, or by
// socket if many may share an address.
func TestJoinsHaveTheRateOfCopies(t *testing.T) {
	for _, test := range []struct {
		user, address string
		alone         bool
	}{{"ann", "10.0.0.1:1", false}, {"", "192.0.2.1:1", false}, {"", "10.0.0.1:1", true}} {
		all := NewClients(ClientOptions{CopyBytes: 32 << 10})
		join := func(c *Client, rooms int) (n int) {
			for ; n < 1000 && c.Join(rooms) == nil; n++ {
			}
			return n
		}
		one, other := all.Client(test.user, test.address), all.Client(test.user, test.address)
		if n := join(one, 1); n != 1000 {
			t.Errorf("%+v: %d joins of one room, want 1000", test, n)
		}
		if n := join(one, 129); n != 10 {
			t.Errorf("%+v: %d joins of 129 rooms, want 10", test, n)
		}
		if n := join(other, 129); n != map[bool]int{true: 10}[test.alone] {
			t.Errorf("%+v: %d joins of another socket", test, n)
		}
	}
}

// TestSessionWritesHaveTheRateOfCopies: session writes delay the next joins and leaves of the user or
// the address, or of the socket if many may share an address, for at most the time that a client
// waits for an ack.
func TestSessionWritesHaveTheRateOfCopies(t *testing.T) {
	const rate = 64 << 10
	for _, test := range []struct {
		user, address string
		rate          int
		alone         bool
	}{{"ann", "10.0.0.1:1", rate, false}, {"", "192.0.2.1:1", rate, false}, {"", "10.0.0.1:1", rate / ownPart, true}} {
		synctest.Test(t, func(t *testing.T) {
			all := NewClients(ClientOptions{CopyBytes: rate})
			one, other := all.Client(test.user, test.address), all.Client(test.user, test.address)
			write := func(c *Client, bytes int) time.Duration {
				begun := time.Now()
				if err := c.Write(t.Context()); err != nil {
					t.Fatalf("%+v: %v", test, err)
				}
				c.Wrote(bytes)
				return time.Since(begun)
			}
			for range burst { // of which the last one may be larger
				if d := write(one, test.rate); d != 0 {
					t.Errorf("%+v: a write within the burst waits %v, want 0", test, d)
				}
			}
			if d := write(one, 2*test.rate); d == 0 || d > time.Second {
				t.Errorf("%+v: one more waits %v", test, d)
			}
			if d := write(other, 1); (d == 0) != test.alone {
				t.Errorf("%+v: one of another socket waits %v", test, d)
			}
			if d := write(one, 10*test.rate); d > 2*time.Second+time.Millisecond {
				t.Errorf("%+v: the next waits %v, want at most %v", test, d, 2*time.Second+time.Millisecond)
			}
			begun := time.Now()
			err := one.Write(t.Context())
			if !errors.As(err, new(*ExceededError)) || time.Since(begun) > readWait {
				t.Errorf("%+v: after ten seconds' worth: %v after %v", test, err, time.Since(begun))
			}
			if n := all.tally.Refused()[CopyRate]; n == 0 {
				t.Errorf("%+v: nothing is counted", test)
			}
			time.Sleep(8 * time.Second)
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(errLeft)
			if err := one.Write(ctx); !errors.Is(err, errLeft) {
				t.Errorf("%+v: with a context that has ended: %v, want errLeft", test, err)
			}
			time.Sleep(time.Minute)
			if d := write(one, 1); d != 0 {
				t.Errorf("%+v: a minute later it waits %v, want 0", test, d)
			}
		})
	}
	off := NewClients(ClientOptions{}).Client("ann", "")
	off.Wrote(1 << 40)
	if err := off.Write(t.Context()); err != nil {
		t.Errorf("without a limit: %v", err)
	}
}

var errLeft = errors.New("left")

// Without a limit nothing is delayed or counted, however many sockets of a user write concurrently.
func TestNoCopyRate(t *testing.T) {
	tally := NewTally(zap.NewNop())
	all := NewClients(ClientOptions{Tally: tally})
	var writes sync.WaitGroup
	for range 8 {
		writes.Go(func() {
			c := all.Client("alice", "192.0.2.1")
			for range 5000 {
				if err := c.Write(t.Context()); err != nil {
					t.Error(err)
				}
				c.Wrote(100)
			}
		})
	}
	writes.Wait()
	if n := tally.Refused()[CopyRate]; n != 0 {
		t.Errorf("%d writes are counted, want 0", n)
	}
}

// TestOnceRate: Redis keeps ids for minutes, so all sockets of a user or of an address share their rate,
// also where many clients may share the address.
func TestOnceRate(t *testing.T) {
	const rate = 64 << 10
	for _, user := range []string{"ann", ""} {
		for _, addr := range []string{"192.0.2.1:1", "10.0.0.1:1", "127.0.0.1:1"} {
			t.Run(user+" "+addr, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					all := NewClients(ClientOptions{CopyBytes: rate})
					ids := 0
					for range 10 { // sockets
						for c := all.Client(user, addr); c.Once() == nil; ids++ {
						}
					}
					if want := rate * burst / copyCost; ids != want {
						t.Errorf("%d ids in a burst of 10 sockets, want %d", ids, want)
					}
				})
			})
		}
	}
	c := NewClients(ClientOptions{}).Client("", "192.0.2.1:1")
	for range 1000 {
		if err := c.Once(); err != nil {
			t.Fatalf("without a rate: %v", err)
		}
	}
}

package limit

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// allowed sends n events and returns how many are allowed.
func allowed(c *Client, n, bytes int) (yes int) {
	for range n {
		switch err := c.Allow(bytes); {
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
		o                      ClientOptions
		bytes                  int
		first, same, other, on int // the allowed events of 100: of a socket, of the same one again, of another socket of the user, and of one without a user
	}{
		{SocketEventRate, ClientOptions{SocketEvents: 1}, 5, 10, 0, 10, 10},
		{SocketByteRate, ClientOptions{SocketBytes: 100}, 50, 20, 0, 20, 20},
		{UserEventRate, ClientOptions{UserEvents: 1}, 5, 10, 0, 0, 100},
		{UserByteRate, ClientOptions{UserBytes: 100}, 50, 20, 0, 0, 100},
		{"", ClientOptions{}, 1 << 20, 100, 100, 100, 100},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				core, logs := observer.New(zap.InfoLevel)
				test.o.Tally = NewTally(zap.New(core))
				all := NewClients(test.o)
				a, b, nobody := all.Client("ann", "192.0.2.1:1"), all.Client("ann", "192.0.2.1:1"), all.Client("", "192.0.2.1:1")
				first, same := allowed(a, 100, test.bytes), allowed(a, 100, test.bytes)
				other, on := allowed(b, 100, test.bytes), allowed(nobody, 100, test.bytes)
				if first != test.first || same != test.same || other != test.other || on != test.on {
					t.Errorf("allowed %d, %d, %d, %d, want %d, %d, %d, %d", first, same, other, on, test.first, test.same, test.other, test.on)
				}
				if test.name == "" {
					return
				}
				if n := all.tally.Refused()[test.name]; n != uint64(400-first-same-other-on) {
					t.Errorf("%d are counted, want %d", n, uint64(400-first-same-other-on))
				}
				if logged := logs.All(); len(logged) != 1 || logged[0].ContextMap()["limit"] != test.name || logged[0].ContextMap()["user"] != "ann" {
					t.Errorf("logged %v", logged)
				}
				time.Sleep(time.Second)
				if again := allowed(a, 100, test.bytes); again != test.first/10 {
					t.Errorf("got %d a second later, want %d", again, test.first/10)
				}
				time.Sleep(10 * time.Second)
				if again := allowed(a, 100, test.bytes); again != test.first {
					t.Errorf("%d when all has been paid, want %d", again, test.first)
				}
			})
		})
	}
}

// TestAddressesHaveEventRates: all clients without a user at one address have ten times the
// rates of a user, unless a proxy may be in front of them.
func TestAddressesHaveEventRates(t *testing.T) {
	for _, test := range []struct {
		limit, address string
		o              ClientOptions
		want           int
	}{
		{IPEventRate, "192.0.2.1:1", ClientOptions{UserEvents: 2}, 200},
		{IPByteRate, "192.0.2.1:1", ClientOptions{UserBytes: 200}, 400},
		{IPEventRate, "10.0.0.1:1", ClientOptions{UserEvents: 2}, 1000},
		{IPEventRate, "127.0.0.1:1", ClientOptions{UserBytes: 200}, 1000},
	} {
		synctest.Test(t, func(t *testing.T) {
			all := NewClients(test.o)
			sent := 0
			for range 100 {
				sent += allowed(all.Client("", test.address), 10, 50)
			}
			if n := all.tally.Refused()[test.limit]; sent != test.want || n != uint64(1000-sent) {
				t.Errorf("%s of %s: %d may, and %d are counted, want %d", test.limit, test.address, sent, n, test.want)
			}
			if n := allowed(all.Client("", "192.0.2.2:1"), 10, 50); n != 10 {
				t.Errorf("got %d of another address, want 10", n)
			}
		})
	}
}

// The largest event is allowed by any rate, and uses it for its time.
func TestTheLargestEventComesThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClients(ClientOptions{SocketBytes: 10, LargestEvent: 1000}).Client("", "")
		if allowed(c, 2, 1200) != 1 {
			t.Error("not once")
		}
		time.Sleep(10 * time.Second)
		if allowed(c, 2, 100) != 1 {
			t.Error("the rest of the burst is not ten seconds' worth")
		}
		time.Sleep(90 * time.Second)
		if allowed(c, 2, 1000) != 0 {
			t.Error("too soon")
		}
	})
}

// Silent users and addresses are forgotten, and their sockets continue to share one limit.
func TestTablesStaySmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := NewClients(ClientOptions{UserEvents: 1, ReadBytes: 1000})
		a, b := all.Client("ann", ""), all.Client("ann", "")
		if n := allowed(a, 20, 1) + allowed(b, 20, 1); n != 10 {
			t.Errorf("got %d events, want 10", n)
		}
		for i := range 20_000 {
			address := fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff)
			allowed(all.Client(fmt.Sprint(i), ""), 1, 1)
			done, err := all.Client("", address).Read(t.Context(), "history")
			if err != nil {
				t.Fatal(err)
			}
			done(1)
			if i%100 == 99 {
				time.Sleep(time.Second)
			}
		}
		if n := len(all.holders.entries); n > 3*leastSweep {
			t.Errorf("got %d users and addresses, want at most %d", n, 3*leastSweep)
		}
		if !a.held.Load().forgotten {
			t.Error("a silent user is remembered")
		}
		if n := allowed(a, 20, 1) + allowed(b, 20, 1); n != 10 {
			t.Errorf("%d events after the user was forgotten, want 10", n)
		}
	})
}

// An event of a known user allocates nothing and waits for no other user.
func TestAllowAllocatesNothing(t *testing.T) {
	c := NewClients(ClientOptions{SocketEvents: 1e6, SocketBytes: 1e9, UserEvents: 1e6, UserBytes: 1e9}).Client("ann", "192.0.2.1:1")
	if n := testing.AllocsPerRun(100, func() {
		if err := c.Allow(10); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
	c.all.holders.mu.Lock()
	defer c.all.holders.mu.Unlock()
	if err := c.Allow(10); err != nil {
		t.Error(err)
	}
}

// Reads wait until the rate allows a page, so that all sockets of a user or an address
// together read no more than the rate.
func TestReadRate(t *testing.T) {
	const rate, page = 1 << 20, 250_000
	for _, user := range []string{"ann", ""} {
		synctest.Test(t, func(t *testing.T) {
			core, logs := observer.New(zap.InfoLevel)
			all := NewClients(ClientOptions{ReadBytes: rate, Tally: NewTally(zap.New(core))})
			const sockets, seconds = 30, 60
			ctx, cancel := context.WithTimeout(t.Context(), seconds*time.Second)
			defer cancel()
			read := make(chan int)
			refused := 0
			for range sockets {
				c := all.Client(user, "192.0.2.1:1")
				go func() { // ends with the context
					for ctx.Err() == nil {
						done, err := c.Read(ctx, "history")
						switch {
						case err == nil:
							read <- page
							done(page)
						case errors.As(err, new(*ExceededError)):
							read <- 0
							time.Sleep(time.Second)
						}
					}
					read <- -1
				}()
			}
			bytes := 0
			for left := sockets; left > 0; {
				switch n := <-read; n {
				case -1:
					left--
				case 0:
					refused++
				default:
					bytes += n
				}
			}
			if most, least := rate*(seconds+burst), rate*(seconds+burst)*9/10; bytes > most || bytes < least {
				t.Errorf("%d bytes are read in %d seconds, want %d to %d", bytes, seconds, least, most)
			}
			if n := all.tally.Refused()[ReadRate]; refused == 0 || n < uint64(refused) {
				t.Errorf("%d are refused, %d counted", refused, n)
			}
			if logged := logs.All(); len(logged) == 0 || logged[0].ContextMap()["limit"] != ReadRate || logged[0].ContextMap()["address"] != "192.0.2.1" {
				t.Errorf("logged %v", logged)
			}
			if done, err := all.Client(user+"x", "192.0.2.2:1").Read(t.Context(), "history"); err != nil {
				t.Errorf("of another client: %v", err)
			} else {
				done(0)
			}
		})
	}
}

// A large page delays the next read, and small reads have a cost.
func TestReadsOfAllSizes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClients(ClientOptions{ReadBytes: 1 << 20}).Client("ann", "")
		begun := time.Now()
		read := func(bytes int) {
			t.Helper()
			done, err := c.Read(t.Context(), "history")
			if err != nil {
				t.Fatal(err)
			}
			done(bytes)
		}
		for range 50 { // five seconds' worth, and a second's of overhead
			read(100 << 10)
		}
		for range 2000 {
			read(0)
		}
		if waited := time.Since(begun); waited != 0 {
			t.Errorf("got %v for six seconds' worth, want 0", waited)
		}
		read(5 << 20)
		begun = time.Now()
		read(0)
		if waited := time.Since(begun).Round(time.Second / 4); waited != 1250*time.Millisecond {
			t.Errorf("%v after more than that", waited)
		}
	})
}

// Recoveries use the same rate. Their bytes are always counted, but their debt is at most ten
// seconds more, and Wait returns the time to wait.
func TestRecoveriesUseTheRateOfReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := NewClients(ClientOptions{ReadBytes: 1 << 20})
		time.Sleep(time.Minute) // unused time is not saved
		r := all.Client("", "192.0.2.1:1")
		r.Charge(9 << 20)
		if wait := r.Wait(); wait != 0 {
			t.Errorf("got %v within the rate, want 0", wait)
		}
		r.Charge(3 << 20)
		if wait := all.Client("", "192.0.2.1:2").Wait().Round(time.Second / 4); wait != 2250*time.Millisecond {
			t.Errorf("%v beyond it, want 2.25 s", wait)
		}
		r.Charge(1 << 30)
		if wait := r.Wait().Round(time.Second / 4); wait != 10*time.Second+time.Second/4 {
			t.Errorf("%v, want 10.25 s", wait)
		}
		if got := all.tally.Refused()[ReadRate]; got != 2 {
			t.Errorf("%d are delayed, want 2", got)
		}
		if wait := all.Client("ann", "192.0.2.1:1").Wait(); wait != 0 {
			t.Errorf("got %v for a user, want 0", wait)
		}
		time.Sleep(11 * time.Second)
		if wait := r.Wait(); wait != 0 {
			t.Errorf("got %v later, want 0", wait)
		}
		none := NewClients(ClientOptions{}).Client("", "")
		if none.Charge(1 << 30); none.Wait() != 0 {
			t.Error("without a rate it waits")
		}
	})
}

func TestNoReadRate(t *testing.T) {
	c := NewClients(ClientOptions{}).Client("", "192.0.2.1:1")
	for range 1000 {
		done, err := c.Read(t.Context(), "members")
		if err != nil {
			t.Fatal(err)
		}
		done(1 << 30)
	}
}

func TestConcurrentReads(t *testing.T) {
	all := NewClients(ClientOptions{ReadBytes: 1 << 30})
	all.running.wait = 10 * time.Millisecond
	c := all.Client("ann", "")
	var leave []func(int)
	for range concurrentHistory {
		done, err := c.Read(t.Context(), "history")
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, done)
	}
	used := c.held.Load().reads
	if _, err := c.Read(t.Context(), "history"); !errors.Is(err, ErrBusy) {
		t.Errorf("one more: %v, want ErrBusy", err)
	}
	if c.held.Load().reads > used+due(time.Second/1000) {
		t.Error("a read that did not run has cost something")
	}
	if got := all.tally.Refused()[ConcurrentReads]; got != 1 {
		t.Errorf("%d refused, want 1", got)
	}
	if done, err := c.Read(t.Context(), "members"); err != nil {
		t.Errorf("another kind: %v", err)
	} else {
		done(0)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Read(ctx, "history"); err == nil {
		t.Error("entered after the end of the context")
	}

	all.running.wait = time.Hour
	entered := make(chan error)
	go func() {
		_, err := all.Client("bob", "").Read(t.Context(), "history")
		entered <- err
	}()
	leave[0](0)
	if err := <-entered; err != nil {
		t.Errorf("after one has left: %v", err)
	}
}

// A socket may renew its token often, but not so often that verifying signatures costs much.
func TestTokenRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := NewClients(ClientOptions{})
		one, other := all.Client("u", "192.0.2.1:1"), all.Client("u", "192.0.2.1:1")
		verified := func(c *Client) (n int) {
			for range 30 {
				if c.Token() == nil {
					n++
				}
			}
			return n
		}
		if n, m := verified(one), verified(other); n != 10 || m != 10 {
			t.Errorf("%d and %d tokens are verified, want 10, 10", n, m)
		}
		time.Sleep(3 * time.Second)
		if n := verified(one); n != 3 {
			t.Errorf("%d tokens are verified after three seconds, want 3", n)
		}
		if n := all.tally.Refused()[TokenRate]; n != 20+20+27 {
			t.Errorf("%d are counted, want %d", n, 20+20+27)
		}
	})
}

package limit

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// ClientOptions configure [Clients]: the rates at which a socket, and all sockets of a user
// together, may send, and the rate of reads for a user. Zero means no limit.
type ClientOptions struct {
	SocketEvents, SocketBytes int
	UserEvents, UserBytes     int
	// LargestEvent is the number of bytes that are always allowed in a burst, even if the byte
	// rates are smaller, and the maximum total of the copies of one event.
	LargestEvent int
	// ReadBytes is the rate of history and members for a user, or, for sockets without a user, for
	// an address.
	ReadBytes int
	// CopyBytes is the rate of copies of a user's events in Redis, or, for sockets without a user,
	// of an address. See [Client.Copy].
	CopyBytes int
	// Proxies determine which addresses may belong to an unnamed proxy. Limits that many clients
	// would share are not applied to these.
	Proxies Proxies
	Tally   *Tally // by default one of its own, which logs nothing
}

// Clients limits the rates at which sockets and users send and read. The methods are safe for
// concurrent use; of those of a [Client] only Charge and Wait are.
type Clients struct {
	clock
	socket    senders
	user      senders
	address   senders
	reads     pace
	copies    pace
	ownWrites pace // of a session, if the address is unknown
	tokens    pace // of one socket
	largest   int
	proxies   Proxies
	running   *running
	holders   *table[key, holder]
	tally     *Tally
}

// perAddress is the rate of an address whose clients have no user, as a multiple of a user's rate:
// many people may share it.
const perAddress = 10

// senders are all sockets, all users or all addresses.
type senders struct {
	whose                 string
	events, bytes         pace
	eventLimit, byteLimit string
}

// A sent is a socket's, a user's or an address' use of its sending rates.
type sent struct{ events, bytes due }

// A key is a user, or an address without one.
type key struct {
	user    string
	address netip.Addr
}

// A holder is a user or an address, with the common use of its sockets.
type holder struct {
	mu sync.Mutex
	sent
	reads     due
	copies    due
	forgotten bool // removed from the table because its limits are unused
}

// A Client is one socket, or one client that recovers, and its use of the limits.
type Client struct {
	all     *Clients
	sent    sent
	name    string // of the user, or ""
	held    atomic.Pointer[holder]
	address netip.Addr
	joins   due // of the rate of copies, if the address is unknown
	writes  due // likewise, of its own rate of session writes
	tokens  due
	delayed atomic.Bool // a recovery, so that it is counted once
}

// An ExceededError says which limit is exceeded.
type ExceededError struct{ message string }

func (e *ExceededError) Error() string { return e.message }

// NewClients returns the limits of a node. Each rate allows a burst of ten seconds' worth, and at
// least one event of LargestEvent bytes, or one page.
func NewClients(o ClientOptions) *Clients {
	o.Tally = cmp.Or(o.Tally, NewTally(zap.NewNop()))
	senders := func(whose string, events, bytes int, eventLimit, byteLimit string) senders {
		return senders{whose, paced(events, 1), paced(bytes, o.LargestEvent), eventLimit, byteLimit}
	}
	c := &Clients{
		clock:     newClock(),
		socket:    senders("this socket", o.SocketEvents, o.SocketBytes, SocketEventRate, SocketByteRate),
		user:      senders("this user", o.UserEvents, o.UserBytes, UserEventRate, UserByteRate),
		address:   senders("this address", perAddress*o.UserEvents, perAddress*o.UserBytes, IPEventRate, IPByteRate),
		reads:     paced(o.ReadBytes, readPage),
		copies:    paced(o.CopyBytes, o.LargestEvent),
		ownWrites: paced((o.CopyBytes+ownPart-1)/ownPart, 0),
		tokens:    paced(1, 0),
		largest:   o.LargestEvent,
		proxies:   o.Proxies,
		running:   newRunning(o.Tally),
		tally:     o.Tally,
	}
	c.holders = newTable[key](c.idle)
	return c
}

// idle reports whether the limits of a user or an address are unused, so that it can be
// forgotten.
func (c *Clients) idle(h *holder) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forgotten = int64(max(h.events, h.bytes, h.reads, h.copies)) <= c.now()
	return h.forgotten
}

// Client returns the limits of one more socket of a user, "" for none, at an address. They
// need not be released.
func (c *Clients) Client(user, address string) *Client {
	return &Client{all: c, name: user, address: network(address)}
}

// holder returns, locked, the user's holder, or without a user that of the address.
func (c *Client) holder() (h *holder) {
	// Usually the holder is unchanged, which avoids waiting for other users' sockets.
	if h = c.held.Load(); h != nil {
		h.mu.Lock()
		if !h.forgotten {
			return h
		}
		h.mu.Unlock()
	}
	k := key{user: c.name}
	if c.name == "" {
		k.address = c.address
	}
	c.all.holders.with(k, func(is *holder) {
		h = is
		h.mu.Lock()
	})
	c.held.Store(h)
	return h
}

// shared reports whether the client has no user, and an address that may be that of a proxy
// in front of all clients.
func (c *Client) shared() bool { return c.name == "" && c.all.proxies.unknown(c.address) }

// Owner returns a name for the clients that share this one's limits: its user, or its address. It is "" if
// the address may be that of a proxy in front of all clients.
func (c *Client) Owner() string {
	switch {
	case c.name != "":
		return "user " + c.name
	case c.shared():
		return ""
	}
	return "address " + c.address.String()
}

// Allow takes one event of some bytes from the sending rates of the socket and its user, or without
// a user its address. If it returns an [*ExceededError] the caller should drop the event.
func (c *Client) Allow(bytes int) error {
	now := c.all.now()
	err := c.allow(&c.all.socket, &c.sent, now, bytes)
	of := &c.all.user
	if c.name == "" {
		of = &c.all.address
	}
	if err != nil || c.shared() {
		return err
	}
	h := c.holder()
	defer h.mu.Unlock()
	return c.allow(of, &h.sent, now, bytes)
}

// Token counts one token that the socket has sent. One per second is allowed, because clients renew
// a token once before it expires, and the signature of a token can take milliseconds to verify. If
// it returns an [*ExceededError] the caller should not verify the token.
func (c *Client) Token() error {
	if !c.all.tokens.take(&c.tokens, c.all.now(), 1) {
		return c.exceeded(TokenRate, "too many tokens of this socket")
	}
	return nil
}

// allow takes one event from the rates of used.
func (c *Client) allow(of *senders, used *sent, now int64, bytes int) error {
	switch {
	case !of.events.take(&used.events, now, 1):
		return c.exceeded(of.eventLimit, "too many events of "+of.whose)
	case !of.bytes.take(&used.bytes, now, bytes):
		return c.exceeded(of.byteLimit, "too many bytes of "+of.whose)
	}
	return nil
}

// exceeded counts and logs that a limit is reached.
func (c *Client) exceeded(limit, message string) error {
	c.reached(limit, "dropped")
	return &ExceededError{message}
}

func (c *Client) reached(limit, outcome string) {
	c.all.tally.refuse(limit, "client limit reached", zap.String("outcome", outcome), zap.String("user", c.name), zap.Stringer("address", c.address))
}

const (
	// readWait is the maximum wait of a read until the rate allows it, and the maximum wait for
	// its turn. Both together are less than the time limit of an event.
	readWait = 3 * time.Second

	// readPage is the number of bytes that a read takes from the rate until the size of its
	// result is known.
	readPage = 256 << 10

	// readCost is the cost of a read beside the bytes of its result.
	readCost = 512
)

// Read waits until the socket may read once more: until the rate allows a page and few other reads
// run concurrently. done ends the read and reports the size of its result. The error is an
// [*ExceededError] if the rate allows none for some seconds, [ErrBusy], or the cause of the
// context's end.
func (c *Client) Read(ctx context.Context, kind string) (done func(bytes int), err error) {
	if err := c.pace(ctx); err != nil {
		return nil, err
	}
	leave, err := c.all.running.enter(ctx, kind)
	if err != nil {
		c.account(-readPage)
		return nil, err
	}
	return func(bytes int) {
		leave()
		c.account(bytes + readCost - readPage)
	}, nil
}

func (c *Client) account(bytes int) {
	h := c.holder()
	defer h.mu.Unlock()
	c.all.reads.charge(&h.reads, bytes)
}

// pace waits until the rate of reads allows a page, and takes it.
func (c *Client) pace(ctx context.Context) error {
	reads := c.all.reads
	return c.await(ctx, ReadRate, "too many bytes were read for "+c.whose(), func(now int64) (bool, time.Duration) {
		h := c.holder()
		defer h.mu.Unlock()
		ok := reads.take(&h.reads, now, readPage)
		return ok, reads.wait(h.reads, now, readPage)
	})
}

// await waits, for some seconds, until try reports that a rate allows the request. Otherwise try
// returns the time until it may.
func (c *Client) await(ctx context.Context, limit, message string, try func(now int64) (bool, time.Duration)) error {
	for waited := time.Duration(0); ; {
		ok, next := try(c.all.now())
		if ok {
			return nil
		}
		if waited == 0 {
			c.reached(limit, "delayed")
		}
		if waited += next; waited > readWait {
			return &ExceededError{fmt.Sprintf("%s; try again in %v", message, max(next.Round(time.Second), time.Second))}
		}
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

func (c *Client) whose() string {
	if c.name == "" {
		return "this address"
	}
	return "this user"
}

// Charge counts bytes that were read for a recovery, whether the rate of reads allows them or not: up
// to another ten seconds' worth, so that others that share the rate do not wait longer.
func (c *Client) Charge(bytes int) {
	reads, now := c.all.reads, c.all.now()
	h := c.holder()
	defer h.mu.Unlock()
	h.reads = max(h.reads, due(now))
	reads.charge(&h.reads, bytes)
	h.reads = min(h.reads, due(now+2*reads.ahead))
}

// Wait returns the time until the rate of reads allows one more page to a recovery.
func (c *Client) Wait() time.Duration {
	h := c.holder()
	wait := c.all.reads.wait(h.reads, c.all.now(), readPage)
	h.mu.Unlock()
	if wait > 0 && c.delayed.CompareAndSwap(false, true) {
		c.reached(ReadRate, "delayed")
	}
	return wait
}

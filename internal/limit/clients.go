package limit

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
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
	Log     *zap.Logger
}

// Clients limits the rates at which sockets and users send and read. The methods are safe for
// concurrent use; a [Client] must be used by one goroutine at a time.
type Clients struct {
	clock
	socket    senders
	user      senders
	address   senders
	reads     pace
	readRate  counter
	copies    pace
	ownWrites pace // of a session, if the address is unknown
	copyRate  counter
	tokens    pace // of one socket
	tokenRate counter
	largest   int
	proxies   Proxies
	running   *running
	users     *table[string, *holder]
	addresses *table[netip.Addr, *holder]
	notice    notice
}

// perAddress is the rate of an address whose clients have no user, as a multiple of a user's rate:
// many people may share it.
const perAddress = 10

// senders are all sockets, all users or all addresses.
type senders struct {
	whose                     string
	events, bytes             pace
	eventCounter, byteCounter counter
}

func newSenders(events, bytes, largest int, eventLimit, byteLimit, whose string) senders {
	return senders{
		whose: whose, events: paced(events, 1), bytes: paced(bytes, largest),
		eventCounter: counter{name: eventLimit}, byteCounter: counter{name: byteLimit},
	}
}

func (s *senders) off() bool { return s.events.unit == 0 && s.bytes.unit == 0 }

// A sent is a socket's or a user's use of its sending rates.
type sent struct {
	mu            sync.Mutex
	events, bytes due
}

// A holder is a user or an address, with the common use of its sockets.
type holder struct {
	sent
	reads     due  // guarded by mu
	copies    due  // guarded by mu
	forgotten bool // guarded by mu: removed from the table because its limits are unused
}

// A Client is one socket, and its use of the limits.
type Client struct {
	all     *Clients
	sent    sent
	name    string // of the user, or ""
	held    *holder
	address netip.Addr
	joins   due // of the rate of copies, if the address is unknown
	writes  due // likewise, of its own rate of session writes
	tokens  due
}

// An ExceededError says which limit is exceeded.
type ExceededError struct{ message string }

func (e *ExceededError) Error() string { return e.message }

// NewClients returns the limits of a node. Each rate allows a burst of ten seconds' worth, and at
// least one event of LargestEvent bytes, or one page.
func NewClients(o ClientOptions) *Clients {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	c := &Clients{
		clock:     newClock(),
		socket:    newSenders(o.SocketEvents, o.SocketBytes, o.LargestEvent, SocketEventRate, SocketByteRate, "this socket"),
		user:      newSenders(o.UserEvents, o.UserBytes, o.LargestEvent, UserEventRate, UserByteRate, "this user"),
		address:   newSenders(perAddress*o.UserEvents, perAddress*o.UserBytes, o.LargestEvent, IPEventRate, IPByteRate, "this address"),
		reads:     paced(o.ReadBytes, readPage),
		readRate:  counter{name: ReadRate},
		copies:    paced(o.CopyBytes, o.LargestEvent),
		ownWrites: paced((o.CopyBytes+ownPart-1)/ownPart, 0),
		copyRate:  counter{name: CopyRate},
		tokens:    paced(1, 0),
		tokenRate: counter{name: TokenRate},
		largest:   o.LargestEvent,
		proxies:   o.Proxies,
		running:   newRunning(),
		notice:    notice{log: o.Log},
	}
	fresh := func() *holder { return new(holder) }
	c.users = newTable[string](fresh, c.idle)
	c.addresses = newTable[netip.Addr](fresh, c.idle)
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
	if c.held != nil {
		c.held.mu.Lock()
		if !c.held.forgotten {
			return c.held
		}
		c.held.mu.Unlock()
	}
	take := func(is *holder) {
		h = is
		h.mu.Lock()
	}
	if c.name == "" {
		c.all.addresses.with(c.address, take)
	} else {
		c.all.users.with(c.name, take)
	}
	c.held = h
	return h
}

// shared reports whether the client has no user, and an address that may be that of a proxy
// in front of all clients.
func (c *Client) shared() bool { return c.name == "" && c.all.proxies.unknown(c.address) }

// Allow takes one event of some bytes from the sending rates of the socket and its user, or without
// a user its address. If it returns an [*ExceededError] the caller should drop the event.
func (c *Client) Allow(bytes int) error {
	now := c.all.now()
	c.sent.mu.Lock()
	err := c.allow(&c.all.socket, &c.sent, now, bytes)
	c.sent.mu.Unlock()
	of := &c.all.user
	if c.name == "" {
		of = &c.all.address
	}
	if err != nil || of.off() || c.shared() {
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
		return c.exceeded(&c.all.tokenRate, "too many tokens of this socket")
	}
	return nil
}

// allow takes one event from the rates of used, which is locked.
func (c *Client) allow(of *senders, used *sent, now int64, bytes int) error {
	switch {
	case !of.events.take(&used.events, now, 1):
		return c.exceeded(&of.eventCounter, "too many events of "+of.whose)
	case !of.bytes.take(&used.bytes, now, bytes):
		return c.exceeded(&of.byteCounter, "too many bytes of "+of.whose)
	}
	return nil
}

// exceeded counts and logs that a limit is reached.
func (c *Client) exceeded(limit *counter, message string) error {
	c.reached(limit, "dropped")
	return &ExceededError{message}
}

func (c *Client) reached(limit *counter, outcome string) {
	limit.n.Add(1)
	c.all.notice.warn(limit.name, "client limit reached", zap.String("limit", limit.name), zap.String("outcome", outcome),
		zap.String("user", c.name), zap.Stringer("address", c.address))
}

// Refused returns how many events and reads were refused or delayed, by limit.
func (c *Clients) Refused() map[string]uint64 {
	return counts(&c.socket.eventCounter, &c.socket.byteCounter, &c.user.eventCounter, &c.user.byteCounter,
		&c.address.eventCounter, &c.address.byteCounter, &c.readRate, &c.copyRate, &c.tokenRate, &c.running.refused)
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
		c.charge(-readPage)
		return nil, err
	}
	return func(bytes int) {
		leave()
		c.charge(bytes + readCost - readPage)
	}, nil
}

func (c *Client) charge(bytes int) {
	if c.all.reads.unit == 0 {
		return
	}
	h := c.holder()
	defer h.mu.Unlock()
	c.all.reads.charge(&h.reads, bytes)
}

// pace waits until the rate of reads allows a page, and takes it.
func (c *Client) pace(ctx context.Context) error {
	reads := c.all.reads
	if reads.unit == 0 {
		return nil
	}
	return c.await(ctx, &c.all.readRate, "too many bytes were read for "+c.whose(), func(now int64) (bool, time.Duration) {
		h := c.holder()
		defer h.mu.Unlock()
		ok := reads.take(&h.reads, now, readPage)
		return ok, reads.wait(h.reads, now, readPage)
	})
}

// await waits, for some seconds, until try reports that a rate allows the request. Otherwise try
// returns the time until it may.
func (c *Client) await(ctx context.Context, limit *counter, message string, try func(now int64) (bool, time.Duration)) error {
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

// A Recovery limits the reads of one client's recoveries. It uses the rate of reads.
type Recovery struct {
	mu      sync.Mutex
	client  *Client
	delayed bool
}

// Recovery returns the limit for the reads of a recovered client of a user, "" for none, at an
// address. Its methods are safe for concurrent use.
func (c *Clients) Recovery(user, address string) *Recovery {
	return &Recovery{client: c.Client(user, address)}
}

// Charge counts bytes that were read, whether the rate allows them or not. Its debt is at
// most another ten seconds' worth, so that clients that share the rate do not wait longer.
func (r *Recovery) Charge(bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.client.all
	if all.reads.unit == 0 {
		return
	}
	h := r.client.holder()
	defer h.mu.Unlock()
	now := all.now()
	h.reads = max(h.reads, due(now))
	all.reads.charge(&h.reads, bytes)
	h.reads = min(h.reads, due(now+2*all.reads.ahead))
}

// Wait returns the time until the rate allows one more page.
func (r *Recovery) Wait() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.client.all
	if all.reads.unit == 0 {
		return 0
	}
	h := r.client.holder()
	wait := all.reads.wait(h.reads, all.now(), readPage)
	h.mu.Unlock()
	if wait > 0 && !r.delayed {
		r.delayed = true
		r.client.reached(&all.readRate, "delayed")
	}
	return wait
}

package limit

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
)

// ClientOptions configure [Clients]: what a socket, and all sockets of a user together,
// may send in a second, and what is read for a user. A zero is no limit.
type ClientOptions struct {
	SocketEvents, SocketBytes int
	UserEvents, UserBytes     int
	// LargestEvent is how many bytes can always come at once, where rates of bytes
	// are smaller, and how many the copies of one event may have together.
	LargestEvent int
	// ReadBytes are what history and members may read for a user, or, where sockets
	// have no user, for an address.
	ReadBytes int
	// CopyBytes are what the copies of a user's events may take in Redis, or, where
	// sockets have no user, those of an address. See [Client.Copy].
	CopyBytes int
	// Proxies tell which addresses may be a proxy's that is not named. What many clients
	// need is not limited for these.
	Proxies Proxies
	Log     *zap.Logger
}

// Clients limit what sockets and users send and read. All methods, and those of a
// [Client], may be called concurrently, but those of one Client by one goroutine at a time.
type Clients struct {
	clock
	socket    senders
	user      senders
	address   senders
	reads     pace
	readRate  counter
	copies    pace
	copyRate  counter
	largest   int
	proxies   Proxies
	running   *running
	users     *table[string, *holder]
	addresses *table[netip.Addr, *holder]
	notice    notice
}

// perAddress is how many times the rate of a user an address has whose clients have no
// user: many people may share it.
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

// A sent is what a socket or a user has used of what it may send.
type sent struct {
	mu            sync.Mutex
	events, bytes due
}

// A holder is a user or an address, and what its sockets have used together.
type holder struct {
	sent
	reads     due  // guarded by mu
	copies    due  // guarded by mu
	forgotten bool // guarded by mu: not in the table any more, because it is as good as new
}

// A Client is one socket, and what it has used.
type Client struct {
	all     *Clients
	sent    sent
	name    string // of the user, "" for none
	held    *holder
	address netip.Addr
	joins   due // of the rate of copies, where the address is not known
}

// An ExceededError says which limit is exceeded.
type ExceededError struct{ message string }

func (e *ExceededError) Error() string { return e.message }

// NewClients returns the limits of a node. Each rate allows ten seconds' worth at once.
func NewClients(o ClientOptions) *Clients {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	c := &Clients{
		clock:    newClock(),
		socket:   newSenders(o.SocketEvents, o.SocketBytes, o.LargestEvent, SocketEventRate, SocketByteRate, "this socket"),
		user:     newSenders(o.UserEvents, o.UserBytes, o.LargestEvent, UserEventRate, UserByteRate, "this user"),
		address:  newSenders(perAddress*o.UserEvents, perAddress*o.UserBytes, o.LargestEvent, IPEventRate, IPByteRate, "this address"),
		reads:    paced(o.ReadBytes, readPage),
		readRate: counter{name: ReadRate},
		copies:   paced(o.CopyBytes, o.LargestEvent),
		copyRate: counter{name: CopyRate},
		largest:  o.LargestEvent,
		proxies:  o.Proxies,
		running:  newRunning(),
		notice:   notice{log: o.Log},
	}
	fresh := func() *holder { return new(holder) }
	c.users = newTable[string](fresh, c.idle)
	c.addresses = newTable[netip.Addr](fresh, c.idle)
	return c
}

// idle reports whether a user or an address is as good as new, and can be forgotten.
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

// holder returns the user's holder, or without a user that of the address, locked.
func (c *Client) holder() (h *holder) {
	// Most often the holder is still the same, and no other user's socket is waited for.
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

// Allow takes one event of some bytes from what the socket and its user, or without a user
// its address, may send. The error is an [*ExceededError]: the event should be dropped.
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

// allow takes one event of what was used, which is locked.
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
		&c.address.eventCounter, &c.address.byteCounter, &c.readRate, &c.copyRate, &c.running.refused)
}

const (
	// readWait is how long a read waits at most until the rate allows it, and then for its
	// turn: both together are less than an event may take.
	readWait = 3 * time.Second

	// readPage is what a read takes of the rate until it is known what it returns.
	readPage = 256 << 10

	// readCost is what a read costs beside the bytes of what it returns.
	readCost = 512
)

// Read waits until the socket may read one more time: until the rate allows a page, and
// few others read concurrently. done ends the read, which has returned so many bytes. The
// error is an [*ExceededError] if the rate allows none for some seconds, [ErrBusy], or the
// cause of the context's end.
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
	for waited := time.Duration(0); ; {
		now := c.all.now()
		h := c.holder()
		ok := reads.take(&h.reads, now, readPage)
		next := reads.wait(h.reads, now, readPage)
		h.mu.Unlock()
		if ok {
			return nil
		}
		if waited == 0 {
			c.reached(&c.all.readRate, "delayed")
		}
		if waited += next; waited > readWait {
			return &ExceededError{fmt.Sprintf("too many bytes were read for %s; try again in %v", c.whose(), max(next.Round(time.Second), time.Second))}
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

// A Recovery is what recoveries of one client read. It uses the rate of reads.
type Recovery struct {
	mu      sync.Mutex
	client  *Client
	delayed bool
}

// Recovery returns the limit of what is read for a recovered client of a user, "" for none,
// at an address. Its methods may be called concurrently.
func (c *Clients) Recovery(user, address string) *Recovery {
	return &Recovery{client: c.Client(user, address)}
}

// Charge counts bytes that were read, whether the rate allows them or not: up to another
// ten seconds' worth, so that others that share the rate do not wait for longer.
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

// Wait returns how long it takes until the rate allows a page more.
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

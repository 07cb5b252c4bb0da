package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

// A link is a node's connections to the server that orders a partition: one for publishing, which
// executes calls one after another, and a pool for reading. When something fails the link is closed
// and another one opened. Connections never reconnect automatically, so no change of the server
// goes unnoticed.
type link struct {
	addr   string
	server identity
	writer *goredis.Client // of one connection, which is conn
	conn   *goredis.Conn
	reader *goredis.Client
}

// identity identifies one connection to one run of a server.
type identity struct {
	run        string // the server's run id, or a random word if it does not report one
	identified bool   // the server has reported its run id
	client     int64  // the connection's id there; 0 if unknown
	// fence is the key that forbids the calls sent on the connection, if the connection cannot be
	// killed. Empty if it can.
	fence string
}

// maySame reports whether two connections may lead to the same server.
func (who identity) maySame(other identity) bool {
	return !who.identified || !other.identified || who.run == other.run
}

var errDialed = errors.New("adapter/redis: connection closed")

// single makes options for one connection only, which records the identity of the server.
func single(o *goredis.Options, who *identity) *goredis.Options {
	once := *o
	dial := once.Dialer
	if dial == nil {
		dial = goredis.NewDialer(o)
	}
	var dialed atomic.Bool
	once.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if dialed.Swap(true) {
			return nil, errDialed
		}
		return dial(ctx, network, addr)
	}
	once.OnConnect = func(ctx context.Context, cn *goredis.Conn) (err error) {
		*who, err = identify(ctx, cn)
		return err
	}
	// With as many failures as it may have connections, a pool would continue to dial in the
	// background.
	once.PoolSize, once.MinIdleConns, once.DialerRetries = 2, 0, 1
	return &once
}

// identify reads the identity of a connection's server. A service without CLIENT ID, or that hides
// its run id, is used without them.
func identify(ctx context.Context, cn *goredis.Conn) (identity, error) {
	who := identity{run: rand.Text()[:12]}
	id, err := cn.ClientID(ctx).Result()
	if err != nil && !lacks(err) {
		return who, fmt.Errorf("CLIENT ID: %w", err)
	}
	who.client = id
	run, err := runID(ctx, cn)
	switch {
	case err == nil:
		who.run, who.identified = run, true
	case !lacks(err):
		return who, err
	}
	return who, nil
}

var errNoRunID = errors.New("INFO server has no run_id")

// lacks reports whether an error says that a command does not exist, or that this user must not run
// it.
func lacks(err error) bool {
	var reply goredis.Error
	return errors.Is(err, errNoRunID) || errors.As(err, &reply) && says(reply, "NOPERM", "ERR")
}

// alive makes connections end with the adapter: go-redis observes the deadlines of contexts, but
// not their cancellation.
func (p *partition) alive(o *goredis.Options) *goredis.Options {
	bound := *o
	dial := o.Dialer
	if dial == nil {
		dial = goredis.NewDialer(o)
	}
	bound.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := p.bounded(ctx)
		defer cancel()
		defer context.AfterFunc(p.ctx, cancel)()
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		unbind := context.AfterFunc(p.ctx, func() { _ = conn.Close() })
		bound := boundConn{conn, unbind, &p.pace.received}
		if raw, ok := conn.(syscall.Conn); ok {
			return &checkedConn{bound, raw}, nil
		}
		return &bound, nil
	}
	return &bound
}

type boundConn struct {
	net.Conn
	unbind   func() bool
	received *atomic.Int64 // bytes
}

func (c *boundConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.received.Add(int64(n))
	return n, err
}

func (c *boundConn) Close() error {
	c.unbind()
	return c.Conn.Close()
}

// checkedConn is a connection that go-redis can check before reuse: whether the server has closed
// it.
type checkedConn struct {
	boundConn
	syscall.Conn
}

func runID(ctx context.Context, c goredis.Cmdable) (string, error) {
	info, err := c.Info(ctx, "server").Result()
	if err != nil {
		return "", fmt.Errorf("INFO server: %w", err)
	}
	for line := range strings.Lines(info) {
		if id, ok := strings.CutPrefix(line, "run_id:"); ok {
			return strings.TrimSpace(id), nil
		}
	}
	return "", errNoRunID
}

// readers is the maximum number of concurrent reads.
const readers = 16

func (p *partition) openLink(ctx context.Context) (*link, error) {
	o, err := p.primary(ctx)
	if err != nil {
		return nil, err
	}
	l := &link{addr: o.Addr}
	o = p.alive(o)
	l.writer = goredis.NewClient(single(o, &l.server))
	l.conn = l.writer.Conn()
	if err := p.explore(ctx, l); err != nil {
		_ = l.close()
		return nil, fmt.Errorf("connecting to %s: %w", o.Addr, err)
	}
	if err := p.verify(ctx, l.conn); err != nil {
		_ = l.close()
		return nil, fmt.Errorf("verifying %s: %w", o.Addr, err)
	}
	pool := *o
	pool.PoolSize, pool.DialerRetries = readers, 1
	pool.OnConnect = func(ctx context.Context, cn *goredis.Conn) error {
		if !l.server.identified {
			return nil
		}
		run, err := runID(ctx, cn)
		if err == nil && run != l.server.run {
			err = errOtherServer
		}
		return err
	}
	l.reader = goredis.NewClient(&pool)
	return l, nil
}

// nobody is a connection id that no server will issue soon.
const nobody = 1 << 53

// explore makes the connection, and determines which commands with an alternative the server does
// not allow this user.
func (p *partition) explore(ctx context.Context, l *link) error {
	if err := l.conn.Ping(ctx).Err(); err != nil {
		return err
	}
	pipe := l.conn.Pipeline()
	kill, role := pipe.Do(ctx, "CLIENT", "KILL", "ID", nobody), pipe.Do(ctx, "ROLE")
	_, _ = pipe.Exec(ctx)
	for _, cmd := range []*goredis.Cmd{kill, role} {
		if err := cmd.Err(); err != nil && !lacks(err) {
			return err
		}
	}
	if kill.Err() != nil || l.server.client == 0 {
		l.server.fence = p.names.fence(rand.Text()[:16])
	}
	p.roleless.Store(role.Err() != nil)
	p.explored.Do(func() {
		if l.server.fence != "" || !l.server.identified || role.Err() != nil {
			p.log.Info("Redis restricts commands; using substitutes",
				zap.NamedError("CLIENT KILL", kill.Err()), zap.Bool("client id", l.server.client != 0),
				zap.Bool("run id", l.server.identified), zap.NamedError("ROLE", role.Err()))
		}
	})
	return nil
}

// close ends all connections. conn may be in use, in which case go-redis does not allow closing it;
// closing writer closes its only connection, too.
func (l *link) close() error {
	var errs []error
	if l.writer != nil {
		errs = append(errs, l.writer.Close())
	}
	if l.reader != nil {
		errs = append(errs, l.reader.Close())
	}
	return errors.Join(errs...)
}

// fenceLife is how long calls that were sent on an abandoned connection stay forbidden.
const fenceLife = 24 * time.Hour

// kill makes sure that no call sent on a connection is executed from now on. A server that has
// restarted has forgotten them anyway. If connections cannot be killed, their calls are forbidden:
// each checks the fence of its connection first. The fence is in the order of all writes, so a
// server that has the retry has the fence as well.
func (l *link) kill(ctx context.Context, former identity) error {
	if !former.maySame(l.server) {
		return nil
	}
	if former.fence != "" {
		if err := l.conn.Set(ctx, former.fence, "", fenceLife).Err(); err != nil {
			return fmt.Errorf("fence an abandoned connection: %w", err)
		}
		return nil
	}
	err := l.conn.Do(ctx, "CLIENT", "KILL", "ID", former.client).Err()
	if err != nil {
		return fmt.Errorf("CLIENT KILL: %w", err)
	}
	return nil
}

// current returns the link, and opens one if there is none. Callers share it.
func (p *partition) current(ctx context.Context) (*link, error) {
	// The lock is a channel, so that a caller can stop waiting for another one that connects.
	select {
	case p.linking <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-p.linking }()
	if l := p.link.Load(); l != nil {
		return l, nil
	}
	if p.ctx.Err() != nil {
		return nil, context.Cause(p.ctx)
	}
	if wait := time.Until(p.nextLink); wait > 0 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), p.linkErr)
		}
	}
	// The first caller may give up; the connection is for all.
	ctx, cancel := context.WithTimeout(p.ctx, p.timeout)
	defer cancel()
	began := time.Now()
	l, err := p.openLink(ctx)
	if p.linkErr = err; err != nil {
		p.nextLink = time.Now().Add(relinkPause)
		p.failed(err, began)
		return nil, err
	}
	p.mu.Lock()
	if p.gen != nil && !p.gen.server.maySame(l.server) { // before any read on it
		p.gen.stop(errOtherServer)
	}
	p.mu.Unlock()
	p.link.Store(l)
	return l, nil
}

// relinkPause is the minimum interval between two attempts to connect.
const relinkPause = 50 * time.Millisecond

// unlink closes a link after a failed call. began is the time at which the call began.
// Concurrent calls on the link fail.
func (p *partition) unlink(l *link, cause error, began time.Time) {
	if p.link.CompareAndSwap(l, nil) {
		p.failed(cause, began)
		_ = l.close()
	}
}

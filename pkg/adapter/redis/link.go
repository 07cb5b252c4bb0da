package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// A link is a node's connections to the server that orders a partition: one for
// publishing, on which calls go one after another, and a pool for reading. When
// something fails it is closed and another one opened; nothing reconnects by
// itself, so no change of the server goes unnoticed.
type link struct {
	addr   string
	server identity
	writer *goredis.Client // of one connection, which is conn
	conn   *goredis.Conn
	reader *goredis.Client
}

// identity names one connection to one life of a server.
type identity struct {
	run    string // the server's run id
	client int64  // the connection's id there
}

var errDialed = errors.New("adapter/redis: the connection is gone")

// single makes options that are good for one connection only, which fills in who
// is at its other end.
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
	once.OnConnect = func(ctx context.Context, cn *goredis.Conn) error {
		id, err := cn.ClientID(ctx).Result()
		if err != nil {
			return fmt.Errorf("CLIENT ID: %w", err)
		}
		run, err := runID(ctx, cn)
		*who = identity{run: run, client: id}
		return err
	}
	// With as many failures as it may have connections, a pool would go on dialling in the background.
	once.PoolSize, once.MinIdleConns, once.DialerRetries = 2, 0, 1
	return &once
}

// alive makes connections end with the adapter: go-redis heeds the deadlines of
// contexts, but not that they are cancelled.
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
		if tcp, ok := conn.(*net.TCPConn); ok {
			return &boundTCP{tcp, unbind}, nil
		}
		return &boundConn{conn, unbind}, nil
	}
	return &bound
}

type boundConn struct {
	net.Conn
	unbind func() bool
}

func (c *boundConn) Close() error {
	c.unbind()
	return c.Conn.Close()
}

// boundTCP is one that go-redis can look at before it is used again.
type boundTCP struct {
	*net.TCPConn
	unbind func() bool
}

func (c *boundTCP) Close() error {
	c.unbind()
	return c.TCPConn.Close()
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
	return "", errors.New("INFO server says no run_id")
}

// readers is how many reads may be under way at once.
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
	if err := l.conn.Ping(ctx).Err(); err != nil {
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
		run, err := runID(ctx, cn)
		if err == nil && run != l.server.run {
			err = errOtherServer
		}
		return err
	}
	l.reader = goredis.NewClient(&pool)
	return l, nil
}

// close ends all connections. conn may be in use, and go-redis does not let it be
// closed then; with writer its only connection ends, too.
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

// kill makes sure that nothing more is executed of what was sent on a connection.
// A server in another life has forgotten it anyway.
func (l *link) kill(ctx context.Context, former identity) error {
	if former.run != l.server.run {
		return nil
	}
	err := l.conn.Do(ctx, "CLIENT", "KILL", "ID", former.client).Err()
	if err != nil {
		return fmt.Errorf("CLIENT KILL: %w", err)
	}
	return nil
}

// current returns the link, opening one where there is none. Callers share it.
func (p *partition) current(ctx context.Context) (*link, error) {
	// The lock is a channel, so that waiting for whoever connects can end.
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
	// Whoever asked first may give up; the connection is for all.
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
	if p.gen != nil && p.gen.server.run != l.server.run { // before anybody reads there
		p.gen.stop(errOtherServer)
	}
	p.mu.Unlock()
	p.link.Store(l)
	return l, nil
}

// relinkPause is the least time between two tries to connect.
const relinkPause = 50 * time.Millisecond

// unlink closes a link on which a call failed that began at some time. Others may
// be using it; their calls fail.
func (p *partition) unlink(l *link, cause error, began time.Time) {
	if p.link.CompareAndSwap(l, nil) {
		p.failed(cause, began)
		_ = l.close()
	}
}

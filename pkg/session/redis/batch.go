package redis

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	maxBatch      = 500     // commands in one pipeline, except for a single call's
	maxBatchBytes = 1 << 20 // and their total size
	commandSize   = 512     // approximate size of a command itself
)

// An item is one command on one key. Items for the same server are executed in the order of their
// arrival.
type item struct {
	key   string
	cmd   redis.Cmder
	text  string    // of the script that it runs
	asked time.Time // when a TTL was requested, if it sets one
}

// A call holds the commands of one caller for one server.
type call struct {
	ctx  context.Context
	cmds []item
	size int
	done chan struct{} // closed when the commands have their results

	lane  *lane // under the store's lock
	state state
}

// A call waits, and then is either sent or, if its context ends first, withdrawn.
type state uint8

const (
	waiting state = iota
	sent
	left
)

// A lane sends to one server, one pipeline at a time. It has a goroutine while it has work.
type lane struct {
	waiting []*call
	left    int // calls that were withdrawn
	busy    bool
	clock   clock // its goroutine's
}

// Stats are counts since the store was created, except Waiting, which is current.
type Stats struct {
	Pipelines uint64 // sent to Redis
	Commands  uint64 // in them
	Resent    uint64 // commands whose script Redis did not know
	Waiting   int    // calls that are waiting for their pipeline now
}

type counts struct{ pipelines, commands, resent atomic.Uint64 }

// Stats returns the store's counts. It is safe for concurrent use.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{
		Pipelines: s.counts.pipelines.Load(),
		Commands:  s.counts.commands.Load(),
		Resent:    s.counts.resent.Load(),
		Waiting:   s.waiting,
	}
}

// do executes commands with a total size, and returns the first error. Afterwards each command has
// its result; once ctx has ended the caller must not touch them.
func (s *Store) do(ctx context.Context, size int, items ...item) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	calls := make(map[string]*call, 1)
	for _, it := range items {
		server, err := s.server(ctx, it.key)
		if err != nil {
			return err
		}
		c := calls[server]
		if c == nil {
			c = &call{ctx: ctx, size: size, done: make(chan struct{})}
			calls[server] = c
		}
		c.size += commandSize
		it.cmd.SetErr(errNotSent)
		c.cmds = append(c.cmds, it)
	}
	if err := s.enqueue(calls); err != nil {
		return err
	}
	for _, c := range calls {
		select {
		case <-c.done:
		case <-ctx.Done():
			s.leave(calls)
			return context.Cause(ctx)
		}
	}
	for _, it := range items {
		switch err, ended := it.cmd.Err(), context.Cause(ctx); {
		case err == nil:
		case ended != nil && !errors.Is(err, redis.Nil):
			return ended // it was skipped, or the error is a consequence
		default:
			return err
		}
	}
	return nil
}

var errNotSent = errors.New("not sent")

// server returns the lane of a key.
func (s *Store) server(ctx context.Context, key string) (string, error) {
	cluster, ok := s.client.(*redis.ClusterClient)
	if !ok {
		return "", nil
	}
	node, err := cluster.MasterForKey(ctx, key)
	if err != nil {
		return "", err
	}
	return node.Options().Addr, nil
}

func (s *Store) enqueue(calls map[string]*call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if s.waiting >= s.options.MaxWaiting || s.bytes >= s.options.MaxWaitingBytes {
		return ErrFull
	}
	for server, c := range calls {
		l := s.lanes[server]
		if l == nil {
			l = &lane{}
			s.lanes[server] = l
		}
		c.lane = l
		l.waiting = append(l.waiting, c)
		s.waiting++
		s.bytes += c.size
		if !l.busy {
			l.busy = true
			s.running.Go(func() { s.run(l) }) // until the queue is empty
		}
	}
	return nil
}

// leave withdraws calls that have not been sent.
func (s *Store) leave(calls map[string]*call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range calls {
		if c.state != waiting {
			continue
		}
		c.state, c.cmds = left, nil
		s.waiting--
		s.bytes -= c.size
		l := c.lane
		l.left++
		if 2*l.left > len(l.waiting) {
			l.waiting = slices.DeleteFunc(l.waiting, func(c *call) bool { return c.state == left })
			l.left = 0
		}
	}
}

func (s *Store) run(l *lane) {
	for batch := s.next(l); len(batch) > 0; batch = s.next(l) {
		s.send(l, batch)
		for _, c := range batch {
			close(c.done)
		}
	}
}

// next returns the calls of the next pipeline. If there are none, the lane stops.
func (s *Store) next(l *lane) []*call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var batch []*call
	n, commands, size := 0, 0, 0
	for _, c := range l.waiting {
		if len(batch) > 0 && (commands+len(c.cmds) > maxBatch || size+c.size > maxBatchBytes) {
			break
		}
		n++
		if c.state == left {
			l.left--
			continue
		}
		c.state = sent
		batch = append(batch, c)
		commands += len(c.cmds)
		size += c.size
	}
	l.waiting = l.waiting[n:]
	if len(l.waiting) == 0 {
		l.waiting = nil // releases what was sent
	}
	l.busy = len(batch) > 0
	s.waiting -= len(batch)
	s.bytes -= size
	return batch
}

// send executes the commands of the callers that still wait. Commands whose script Redis did not
// know have certainly not run; they are sent again with the script's text.
func (s *Store) send(l *lane, batch []*call) {
	ctx, cancel := context.WithTimeout(context.Background(), s.options.Timeout)
	defer cancel()
	var items []item
	for _, c := range batch {
		if c.ctx.Err() == nil {
			items = append(items, c.cmds...)
		}
	}
	if len(items) == 0 {
		return
	}
	if !l.clock.fresh() {
		ask := item{cmd: redis.NewCmd(ctx, "eval", askTime.text, 1, items[0].key)}
		s.exec(ctx, l, []item{ask})
		if err := ask.cmd.Err(); err != nil {
			for _, it := range items {
				it.cmd.SetErr(err)
			}
			return
		}
	}
	for _, it := range items {
		if !it.asked.IsZero() {
			it.cmd.Args()[argAsked] = l.clock.at(it.asked)
		}
	}
	s.exec(ctx, l, items)
	var again []item
	for _, c := range batch {
		for _, it := range c.cmds {
			if redis.HasErrorPrefix(it.cmd.Err(), "NOSCRIPT") && c.ctx.Err() == nil {
				args := it.cmd.Args()
				args[0], args[1] = "eval", it.text
				it.cmd.SetErr(errNotSent)
				again = append(again, it)
				s.counts.resent.Add(1)
			}
		}
	}
	s.exec(ctx, l, again)
}

// exec gives each command its result, and the clock the time in the last answer.
func (s *Store) exec(ctx context.Context, l *lane, items []item) {
	if len(items) == 0 {
		return
	}
	pipe := s.client.Pipeline()
	for _, it := range items {
		_ = pipe.Process(ctx, once{it.cmd})
	}
	s.counts.pipelines.Add(1)
	s.counts.commands.Add(uint64(len(items)))
	asked := time.Now()
	_, _ = pipe.Exec(ctx)
	for _, it := range slices.Backward(items) {
		if _, server, err := it.answer(); err == nil && server > 0 {
			l.clock.learn(server, asked)
			return
		}
	}
}

// Once is a command that the client for a Cluster does not repeat when a
// connection breaks, though it follows slots that have moved.
type once struct{ redis.Cmder }

func (once) NoRetry() bool { return true }

// Close refuses waiting and new calls, and returns when the sent ones have their answers, or
// Options.Timeout has passed.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	for _, l := range s.lanes {
		for _, c := range l.waiting {
			if c.state == waiting {
				c.state = sent
				for _, it := range c.cmds {
					it.cmd.SetErr(ErrClosed)
				}
				close(c.done)
			}
		}
		l.waiting, l.left = nil, 0
	}
	s.waiting, s.bytes = 0, 0
	s.mu.Unlock()
	s.running.Wait()
	return nil
}

package redis

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/internal/batch"
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

// A call holds the commands of one caller for one server. Afterwards each has its result.
type call = batch.Request[[]item, struct{}]

// A lane sends to one server, one pipeline at a time.
type lane struct {
	calls *batch.Queue[[]item, struct{}]
	clock clock // its goroutine's
}

// Stats are counts since the store was created, except Waiting, which is current.
type Stats struct {
	Pipelines uint64 // sent to Redis
	Commands  uint64 // in them
	Resent    uint64 // commands whose script Redis did not know
	Waiting   int    // calls that are pending now
}

type counts struct{ pipelines, commands, resent atomic.Uint64 }

// Stats returns the store's counts. It is safe for concurrent use.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	pending, _ := s.pending()
	return Stats{
		Pipelines: s.counts.pipelines.Load(),
		Commands:  s.counts.commands.Load(),
		Resent:    s.counts.resent.Load(),
		Waiting:   pending,
	}
}

// pending returns the number of calls that wait for their pipeline, and their size. s.mu is held.
func (s *Store) pending() (calls, bytes int) {
	for _, l := range s.lanes {
		n, size := l.calls.Pending()
		calls, bytes = calls+n, bytes+size
	}
	return calls, bytes
}

// do executes commands with a total size, and returns the first error. Afterwards each command has
// its result; once ctx has ended the caller must not touch them.
func (s *Store) do(ctx context.Context, size int, items ...item) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	var one [1]part
	parts, err := s.split(ctx, one[:0], items)
	if err == nil {
		err = s.put(ctx, size, parts)
	}
	for _, part := range parts {
		if part.call == nil {
			continue
		}
		if _, failed := part.call.Wait(); err == nil {
			err = failed
		}
	}
	if err != nil {
		return err
	}
	for _, it := range items {
		switch err, ended := it.cmd.Err(), context.Cause(ctx); {
		case err == nil:
		case ended != nil && !errors.Is(err, redis.Nil):
			return ended // the error follows from the end of ctx
		default:
			return err
		}
	}
	return nil
}

// A part is the commands for one server.
type part struct {
	server string // its address; "" if there is only one
	items  []item
	call   *call // once it is queued
}

// split appends the parts of commands to parts.
func (s *Store) split(ctx context.Context, parts []part, items []item) ([]part, error) {
	cluster, ok := s.client.(*redis.ClusterClient)
	if !ok {
		return append(parts, part{items: items}), nil
	}
	for _, it := range items {
		node, err := cluster.MasterForKey(ctx, it.key)
		if err != nil {
			return nil, err
		}
		server := node.Options().Addr
		i := slices.IndexFunc(parts, func(p part) bool { return p.server == server })
		if i < 0 {
			i, parts = len(parts), append(parts, part{server: server})
		}
		parts[i].items = append(parts[i].items, it)
	}
	return parts, nil
}

// put queues the parts, or fails with the first that it cannot.
func (s *Store) put(ctx context.Context, size int, parts []part) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open.Err() != nil {
		return ErrClosed
	}
	if n, bytes := s.pending(); n >= s.options.MaxWaiting || bytes >= s.options.MaxWaitingBytes {
		return ErrFull
	}
	for i, p := range parts {
		if parts[i].call, err = s.lane(p.server).calls.Put(ctx, p.items, size+len(p.items)*commandSize); err != nil {
			return err
		}
	}
	return nil
}

// lane returns the lane of a server, and starts it if necessary. s.mu is held, and the store is open.
func (s *Store) lane(server string) *lane {
	l := s.lanes[server]
	if l == nil {
		l = &lane{calls: batch.New[[]item, struct{}](s.open, batch.Options{})}
		s.lanes[server] = l
		s.running.Go(func() { s.run(l) }) // until Close
	}
	return l
}

func (s *Store) run(l *lane) {
	commands, size := 0, 0
	fits := func(n int, c *call) bool {
		if n == 0 {
			commands, size = 0, 0
		}
		commands += len(c.Value)
		size += c.Size
		return commands <= maxBatch && size <= maxBatchBytes
	}
	l.calls.Serve(fits, func(all []*call) {
		items := make([]item, 0, commands)
		for _, c := range all {
			if c.Begin() {
				items = append(items, c.Value...)
			}
		}
		if len(items) > 0 {
			s.send(l, items)
		}
		for _, c := range all {
			c.Answer(struct{}{}, nil)
		}
	})
}

// send executes commands. Those whose script Redis did not know have certainly not run; they are
// sent again with the script's text.
func (s *Store) send(l *lane, items []item) {
	ctx, cancel := context.WithTimeout(context.Background(), s.options.Timeout)
	defer cancel()
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
	for _, it := range items {
		if err := it.cmd.Err(); err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") {
			args := it.cmd.Args()
			args[0], args[1] = "eval", it.text
			it.cmd.SetErr(nil)
			again = append(again, it)
			s.counts.resent.Add(1)
		}
	}
	if len(again) > 0 {
		s.exec(ctx, l, again)
	}
}

// exec gives each command its result, and the clock the time in the last answer.
func (s *Store) exec(ctx context.Context, l *lane, items []item) {
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

// Close refuses pending and new calls, and returns when the sent ones have their answers, or
// Options.Timeout has passed.
func (s *Store) Close() error {
	s.mu.Lock() // no lane starts from here on
	s.close(ErrClosed)
	s.mu.Unlock()
	s.running.Wait()
	return nil
}

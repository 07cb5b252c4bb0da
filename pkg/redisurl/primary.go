package redisurl

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	patience = time.Second // for each Sentinel or node
	asked    = 5           // concurrently
)

// Primary returns options for the server that currently takes the writes of a key. Each call asks
// the Sentinels or the nodes of the Cluster again, several concurrently, and takes the most
// frequent answer, because a single one may not know of a failover yet. The caller may change the
// options.
func (t *Target) Primary(ctx context.Context, key string) (*redis.Options, error) {
	addr := t.server.Addr
	var err error
	switch t.form {
	case Sentinel:
		addr, err = poll(ctx, t.seeds, t.askSentinel)
	case Cluster:
		addr, err = poll(ctx, t.nodes(), func(ctx context.Context, node string) (string, error) {
			return t.askForSlot(ctx, node, key)
		})
	}
	if err != nil {
		return nil, fmt.Errorf("redisurl: find the primary: %w", err)
	}
	return t.at(addr), nil
}

// poll calls ask for addresses in random order, a few concurrently, until some have answered. It
// returns the most frequent answer as soon as that is certain.
func poll(ctx context.Context, addrs []string, ask func(ctx context.Context, addr string) (string, error)) (string, error) {
	addrs = slices.Clone(addrs)
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	var errs []error
	for group := range slices.Chunk(addrs, asked) {
		answer, err := pollGroup(ctx, group, ask)
		if err == nil {
			return answer, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return "", errors.Join(errs...)
}

func pollGroup(ctx context.Context, addrs []string, ask func(ctx context.Context, addr string) (string, error)) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	type reply struct {
		answer string
		err    error
	}
	replies := make(chan reply, len(addrs))
	for _, addr := range addrs {
		wg.Go(func() { // until its reply, or cancel
			answer, err := ask(ctx, addr)
			if err != nil {
				err = fmt.Errorf("query %s: %w", addr, err)
			}
			replies <- reply{answer, err}
		})
	}
	votes := make(map[string]int)
	best := ""
	var errs []error
	for range addrs {
		r := <-replies
		if r.err != nil {
			errs = append(errs, r.err)
			continue
		}
		votes[r.answer]++
		if votes[r.answer] > votes[best] {
			best = r.answer
		}
		if 2*votes[best] > len(addrs) {
			break
		}
	}
	if best == "" {
		return "", errors.Join(errs...)
	}
	return best, nil
}

func (t *Target) askSentinel(ctx context.Context, sentinel string) (addr string, err error) {
	o := *t.ask
	o.Addr = sentinel
	o.MaintNotificationsConfig = quiet()
	err = with(ctx, &o, func(c *redis.Client) error {
		cmd := redis.NewStringSliceCmd(ctx, "sentinel", "get-master-addr-by-name", t.master)
		err := c.Process(ctx, cmd)
		switch parts := cmd.Val(); {
		case errors.Is(err, redis.Nil):
			return fmt.Errorf("no primary is called %s", t.master)
		case err != nil:
			return err
		case len(parts) != 2:
			return fmt.Errorf("address has %d parts, want 2", len(parts))
		default:
			addr = net.JoinHostPort(parts[0], parts[1])
			return nil
		}
	})
	return addr, err
}

func (t *Target) askForSlot(ctx context.Context, node, key string) (addr string, err error) {
	slots, slot, err := t.askForSlots(ctx, node, key)
	if err != nil {
		return "", err
	}
	for _, s := range slots {
		if s.Start <= slot && slot <= s.End && len(s.Nodes) > 0 {
			return s.Nodes[0].Addr, nil
		}
	}
	return "", fmt.Errorf("slot %d has no owner", slot)
}

// askForSlots asks a node for the map of the Cluster, and for the slot of a key.
func (t *Target) askForSlots(ctx context.Context, node, key string) (slots []redis.ClusterSlot, slot int, err error) {
	err = with(ctx, t.at(node), func(c *redis.Client) error {
		pipe := c.Pipeline()
		all, one := pipe.ClusterSlots(ctx), pipe.ClusterKeySlot(ctx, key)
		if _, err := pipe.Exec(ctx); err != nil {
			return err
		}
		slots, slot = all.Val(), int(one.Val())
		return nil
	})
	host, _, _ := net.SplitHostPort(node)
	var addrs []string
	for _, s := range slots {
		for i := range s.Nodes {
			// A node that does not know its own address yet omits it.
			if h, port, _ := net.SplitHostPort(s.Nodes[i].Addr); h == "" {
				s.Nodes[i].Addr = net.JoinHostPort(host, port)
			}
			addrs = append(addrs, s.Nodes[i].Addr)
		}
	}
	if err == nil {
		t.known.Store(&addrs)
	}
	return slots, slot, err
}

// with runs f with a new client, which is closed when ctx ends: go-redis observes a context's
// deadline, but not its cancellation. A client that is kept would refuse to dial for a second after
// failures, and may hold a dead connection.
func with(ctx context.Context, o *redis.Options, f func(*redis.Client) error) error {
	o.DialTimeout = min(o.DialTimeout, patience)
	c := redis.NewClient(o)
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	err := f(c)
	if stop() {
		_ = c.Close()
	} else if err != nil {
		return context.Cause(ctx)
	}
	return err
}

// nodes returns the nodes of a Cluster: the seeds, and those in its newest map.
func (t *Target) nodes() []string {
	all := slices.Clone(t.seeds)
	if known := t.known.Load(); known != nil {
		all = append(all, *known...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

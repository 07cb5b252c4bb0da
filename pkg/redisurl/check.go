package redisurl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Errors of Check that callers may test for.
var (
	// ErrTooOld means that a server's version is below the minimum of its form.
	ErrTooOld = errors.New("redisurl: Redis is too old")
	// ErrEvicts means that a server may evict keys when its memory is full. It is returned only if
	// nothing else is wrong, so a caller that accepts it accepts nothing more.
	ErrEvicts = errors.New("redisurl: Redis may evict keys")
)

// Check queries whether all primaries meet the requirements: Redis 6.2 or later, 7.0 in a
// Cluster, not a replica, with the maxmemory-policy noeviction. It needs only the right to run INFO.
// The error wraps [ErrTooOld] or [ErrEvicts] if a version or the policy is wrong.
func (t *Target) Check(ctx context.Context) error {
	servers, err := t.primaries(ctx)
	if err != nil {
		return fmt.Errorf("redisurl: check: %w", err)
	}
	var evicts error
	for _, o := range servers {
		err := t.check(ctx, o)
		if err != nil && !errors.Is(err, ErrEvicts) {
			return fmt.Errorf("redisurl: check %s: %w", o.Addr, err)
		}
		if err != nil && evicts == nil {
			evicts = fmt.Errorf("redisurl: check %s: %w", o.Addr, err)
		}
	}
	return evicts
}

func (t *Target) check(ctx context.Context, o *redis.Options) error {
	info, err := askInfo(ctx, o)
	if err != nil {
		return fmt.Errorf("read version and maxmemory-policy: %w", err)
	}
	major, minor := 6, 2
	if t.form == Cluster {
		major, minor = 7, 0
	}
	var hasMajor, hasMinor int
	version := info["redis_version"]
	if _, err := fmt.Sscanf(version, "%d.%d", &hasMajor, &hasMinor); err != nil {
		return fmt.Errorf("malformed version %q", version)
	}
	clustered := info["cluster_enabled"] == "1"
	policy := info["maxmemory_policy"]
	switch {
	case hasMajor < major || hasMajor == major && hasMinor < minor:
		return fmt.Errorf("%w: version %s, want %d.%d or later", ErrTooOld, version, major, minor)
	case info["role"] == "slave": // the name in INFO
		return errors.New("server is a replica, which refuses writes (READONLY)")
	case clustered && t.form != Cluster:
		return errors.New("server is part of a Redis Cluster: use scheme redis+cluster")
	case policy == "":
		return fmt.Errorf("%w: maxmemory-policy not reported, want noeviction", ErrEvicts)
	case policy != "noeviction":
		return fmt.Errorf("%w: maxmemory-policy %s, want noeviction", ErrEvicts, policy)
	}
	return nil
}

func askInfo(ctx context.Context, o *redis.Options) (map[string]string, error) {
	info := make(map[string]string)
	err := with(ctx, o, func(c *redis.Client) error {
		text, err := c.Info(ctx).Result()
		for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
			if name, value, ok := strings.Cut(lines.Text(), ":"); ok {
				info[name] = value
			}
		}
		return err
	})
	return info, err
}

// primaries returns the options for each server that takes writes.
func (t *Target) primaries(ctx context.Context) ([]*redis.Options, error) {
	if t.form != Cluster {
		o, err := t.Primary(ctx, "")
		return []*redis.Options{o}, err
	}
	list, err := poll(ctx, t.nodes(), func(ctx context.Context, node string) (string, error) {
		slots, _, err := t.askForSlots(ctx, node, "")
		if err != nil {
			return "", err
		}
		var addrs []string
		for _, s := range slots {
			if len(s.Nodes) > 0 {
				addrs = append(addrs, s.Nodes[0].Addr)
			}
		}
		if len(addrs) == 0 {
			return "", errors.New("no slot has an owner")
		}
		slices.Sort(addrs)
		return strings.Join(slices.Compact(addrs), ","), nil
	})
	if err != nil {
		return nil, err
	}
	var all []*redis.Options
	for addr := range strings.SplitSeq(list, ",") {
		all = append(all, t.at(addr))
	}
	return all, nil
}

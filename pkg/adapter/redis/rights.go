package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
)

// ErrRights means that the Redis user lacks the right to run commands, or to use keys and
// channels, that a node needs. The error names each.
var ErrRights = errors.New("adapter/redis: Redis user lacks rights")

// mayRun checks, before the node joins, that it has all rights that it will ever need. Otherwise a
// missing right that is needed only after a failure would be detected at that failure.
func (a *Adapter) mayRun(ctx context.Context, target *redisurl.Target) error {
	all := make([]names, len(a.partitions))
	for i, p := range a.partitions {
		all[i] = p.names
	}
	denied, err := target.Denied(ctx, commands(target.Form(), all)...)
	if err != nil {
		return fmt.Errorf("%w: checking the rights of the Redis user: %w", adapter.ErrUnavailable, err)
	}
	if len(denied) > 0 {
		return fmt.Errorf("%w: %s (docs/redis.md has the ACL line)", ErrRights, strings.Join(denied, "; "))
	}
	return nil
}

func publishCommand(form redisurl.Form) string {
	if form == redisurl.Cluster {
		return "spublish"
	}
	return "publish"
}

// Commands returns all commands that an adapter with some options needs, for [redisurl.Target.Denied].
// New checks them itself; this is for checks without joining the cluster.
func Commands(form redisurl.Form, prefix string, partitions int) [][]any {
	var all []names
	for _, tag := range tags(partitions) {
		all = append(all, newNames(prefix, tag))
	}
	return commands(form, all)
}

// commands returns all commands that are needed of a server, including those in scripts, except
// those with an alternative: CLIENT ID, CLIENT KILL and ROLE are not among them.
func commands(form redisurl.Form, all []names) [][]any {
	list := commandsOf(form, all[0])
	for _, n := range all[1:] { // the commands are the same and the names differ
		key := n.fence("none")
		list = append(list, []any{"get", key}, []any{publishCommand(form), key, ""})
	}
	return list
}

func commandsOf(form redisurl.Form, n names) [][]any {
	key, publish := n.fence("none"), plain.publish
	if form == redisurl.Cluster {
		publish = sharded.publish
	}
	list := [][]any{
		{"ping"}, {"time"}, {"exec"},
		{"eval", "return 1", 0}, {"evalsha", publish.Hash(), 0}, {"script", "load", "return 1"},
		{"get", key}, {"set", key, ""}, {"del", key}, {"exists", key}, {"pexpire", key, 1}, {"pttl", key},
		{"xadd", key, "*", "c", ""}, {"xrange", key, "-", "+"}, {"xrevrange", key, "+", "-"},
		{"zadd", key, 0, "m"}, {"zrem", key, "m"}, {"zrangebyscore", key, 0, 0},
		{"hget", key, "f"}, {"hset", key, "f", ""}, {"hdel", key, "f"}, {"hgetall", key},
		{publishCommand(form), key, ""},
	}
	if form == redisurl.Cluster {
		return append(list, []any{"ssubscribe", key}, []any{"sunsubscribe", key})
	}
	return append(list, []any{"subscribe", key}, []any{"unsubscribe", key})
}

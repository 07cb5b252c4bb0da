package redis

import (
	"context"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// A pubsub is how events are published: to all subscribers of one server, or, in a Redis Cluster,
// to those that subscribed at the server with the channel's slot. Otherwise each event would go to
// every server of the Cluster.
type pubsub struct {
	publish, renew *goredis.Script
	// fenced is publish for connections that cannot be killed: the last key is the fence of the
	// connection. message sends one message likewise.
	fenced      *goredis.Script
	message     string
	send        func(goredis.Cmdable, context.Context, string, any) *goredis.IntCmd
	subscribe   func(*goredis.PubSub, context.Context, ...string) error
	unsubscribe func(*goredis.PubSub, context.Context, ...string) error
}

var (
	plain = pubsub{
		publish: goredis.NewScript(publishSource), renew: goredis.NewScript(renewSource),
		fenced: goredis.NewScript(fenceSource + publishSource), message: messageSource,
		send:        goredis.Cmdable.Publish,
		subscribe:   (*goredis.PubSub).Subscribe,
		unsubscribe: (*goredis.PubSub).Unsubscribe,
	}
	sharded = pubsub{
		publish: goredis.NewScript(shard(publishSource)), renew: goredis.NewScript(shard(renewSource)),
		fenced: goredis.NewScript(shard(fenceSource + publishSource)), message: shard(messageSource),
		send:        goredis.Cmdable.SPublish,
		subscribe:   (*goredis.PubSub).SSubscribe,
		unsubscribe: (*goredis.PubSub).SUnsubscribe,
	}
)

const (
	fenceSource = `
if redis.call('EXISTS', table.remove(KEYS)) == 1 then
	return redis.error_reply('FENCED this connection was given up')
end
`
	// KEYS: the fence, the channel. ARGV: the message.
	messageSource = `
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
return redis.call('PUBLISH', KEYS[2], ARGV[1])`
)

// script returns the publish script for a link.
func (ps *pubsub) script(l *link) *goredis.Script {
	if l.server.fence != "" {
		return ps.fenced
	}
	return ps.publish
}

// sendOn adds a message to a pipeline of a link.
func (ps *pubsub) sendOn(ctx context.Context, l *link, pipe goredis.Pipeliner, channel string, message []byte) *goredis.IntCmd {
	if l.server.fence == "" {
		return ps.send(pipe, ctx, channel, message)
	}
	cmd := goredis.NewIntCmd(ctx, "eval", ps.message, 2, l.server.fence, channel, message)
	_ = pipe.Process(ctx, cmd)
	return cmd
}

func shard(script string) string { return strings.ReplaceAll(script, "'PUBLISH'", "'SPUBLISH'") }

package redis

import (
	"context"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// A pubsub is how events are handed out: to all of one server, or, in a Redis
// Cluster, to those who subscribed at the server that the channel's slot is on.
// Without that each event would go to every server of the Cluster.
type pubsub struct {
	publish, renew *goredis.Script
	send           func(goredis.Cmdable, context.Context, string, any) *goredis.IntCmd
	subscribe      func(*goredis.PubSub, context.Context, ...string) error
	unsubscribe    func(*goredis.PubSub, context.Context, ...string) error
}

var (
	plain = pubsub{
		publish: goredis.NewScript(publishSource), renew: goredis.NewScript(renewSource),
		send:        goredis.Cmdable.Publish,
		subscribe:   (*goredis.PubSub).Subscribe,
		unsubscribe: (*goredis.PubSub).Unsubscribe,
	}
	sharded = pubsub{
		publish: goredis.NewScript(shard(publishSource)), renew: goredis.NewScript(shard(renewSource)),
		send:        goredis.Cmdable.SPublish,
		subscribe:   (*goredis.PubSub).SSubscribe,
		unsubscribe: (*goredis.PubSub).SUnsubscribe,
	}
)

func shard(script string) string { return strings.ReplaceAll(script, "'PUBLISH'", "'SPUBLISH'") }

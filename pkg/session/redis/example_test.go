package redis_test

import (
	"context"
	"fmt"
	"time"

	"github.com/rejoin-io/rejoin/pkg/redisurl"
	"github.com/rejoin-io/rejoin/pkg/session"
	"github.com/rejoin-io/rejoin/pkg/session/redis"
)

func Example() {
	target, err := redisurl.Parse("redis://localhost:6379")
	if err != nil {
		fmt.Println(err)
		return
	}
	client := target.Client()
	store := redis.New(client, redis.Options{Prefix: "chat:"})
	defer func() {
		_ = store.Close()
		_ = client.Close()
	}()

	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	sn := session.Session{PID: "a secret", ID: "its name", Owner: "node a"}
	if err := store.Create(ctx, sn, 2*time.Minute); err != nil {
		fmt.Println(err)
		return
	}
	// Another node serves it from now on.
	sn, former, err := store.Claim(ctx, "a secret", "node b", 2*time.Minute, nil)
	fmt.Println(sn.Fence, former, err)
}

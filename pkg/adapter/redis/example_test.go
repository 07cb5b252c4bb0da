package redis_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter/redis"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
)

// A node joins the cluster. The adapter is an option of package socketio's server. It needs a Redis.
func ExampleNew() {
	target, err := redisurl.Parse("redis://localhost:6379")
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	a, err := redis.New(ctx, redis.Options{Redis: target, Node: "node-1", Address: "10.0.0.1:3001"})
	if err != nil {
		log.Fatal(err)
	}
	defer a.Close()

	nodes, err := a.Nodes(ctx)
	fmt.Println(len(nodes), err)
}

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"log"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
	sessions "github.com/rejoin-io/rejoin/pkg/session/redis"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// join joins this server to a cluster: Redis provides the order of events, the
// backlogs and the sessions. Call leave when the server has closed.
//
// The requests of one polling session must reach one server here. The node's
// binary forwards such requests instead; this page uses WebSockets only.
func join(ctx context.Context, url string, o *socketio.Options) (leave func(), err error) {
	target, err := redisurl.Parse(url)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := target.Check(ctx); err != nil {
		return nil, err
	}
	link, err := redis.New(ctx, redis.Options{
		Redis: target, Node: adapter.NodeID(rand.Text()[:4]), Prefix: "chat:",
	})
	if err != nil {
		return nil, err
	}
	client := target.Client()
	store := sessions.New(client, sessions.Options{Prefix: "chat:"})
	o.Adapter, o.Sessions = link, store
	return func() {
		if err := errors.Join(store.Close(), client.Close(), link.Close()); err != nil {
			log.Print(err)
		}
	}, nil
}

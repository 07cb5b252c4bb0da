package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter/redis"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
)

// onlineTimeout is the time limit of each check of another server.
const onlineTimeout = 10 * time.Second

// checkOnline connects to the servers that the configuration names, as a node would, and writes what it
// found. It writes nothing to Redis. It returns the exit code.
func checkOnline(ctx context.Context, c config, stdout, stderr io.Writer) int {
	code := exitOK
	for _, check := range []struct {
		name string
		set  bool
		run  func(context.Context, config) error
	}{
		{"REJOIN_REDIS_URL", c.RedisURL.target != nil, checkRedis},
		{"REJOIN_JWKS_URL", c.JwksURL != "", checkJWKS},
	} {
		if !check.set {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, onlineTimeout)
		err := check.run(ctx, c)
		cancel()
		if err != nil {
			fmt.Fprintf(stderr, "rejoin: %s: %v\n", check.name, err)
			code = exitFailure
			continue
		}
		fmt.Fprintf(stdout, "%s: ok\n", check.name)
	}
	return code
}

// checkRedis checks the version, the eviction policy and the rights of the user.
func checkRedis(ctx context.Context, c config) error {
	target := c.RedisURL.target
	if err := target.Check(ctx); err != nil && (!c.AllowEviction || !errors.Is(err, redisurl.ErrEvicts)) {
		return err
	}
	return mayRun(ctx, target, c.RedisPrefix, redis.Commands(target.Form(), c.RedisPrefix, c.partitions())...)
}

// checkJWKS fetches the keys of the JWKS server.
func checkJWKS(ctx context.Context, c config) error {
	v, err := newVerifier(c, nil)
	if err != nil {
		return err
	}
	defer v.Close()
	for first := v.Ready(); ; {
		err := v.Ready()
		if err == nil || !errors.Is(err, first) { // the first attempt has ended
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

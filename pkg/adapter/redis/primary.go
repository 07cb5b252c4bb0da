package redis

import (
	"context"
	"errors"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis/internal/feed"
)

var (
	errReplica     = errors.New("adapter/redis: server has become a replica")
	errOtherServer = errors.New("adapter/redis: subscriber and publisher are connected to different servers")
)

// atPrimary executes reads in one transaction, which fails if the server is no longer the primary:
// data that a replica has not received yet would count as missing.
func (p *partition) atPrimary(ctx context.Context, c goredis.Cmdable, f func(tx goredis.Pipeliner)) error {
	var role *goredis.Cmd
	_, err := c.TxPipelined(ctx, func(tx goredis.Pipeliner) error {
		role = p.askRole(ctx, tx)
		f(tx)
		return nil
	})
	switch {
	case err != nil && says(err, "EXECABORT", "READONLY") && !strings.Contains(err.Error(), "NOPERM"):
		return errors.Join(errReplica, err)
	case err != nil && !errors.Is(err, goredis.Nil): // that is a key without a value
		return err
	}
	return isPrimary(role)
}

// askRole reads whether a server is the primary. If the server does not report it, askRole sends a
// write that changes nothing, which a replica refuses.
func (p *partition) askRole(ctx context.Context, pipe goredis.Pipeliner) *goredis.Cmd {
	if p.roleless.Load() {
		return pipe.Do(ctx, "DEL", p.names.fence("none"))
	}
	return pipe.Do(ctx, "ROLE")
}

// isPrimary returns an error unless a server has reported that it is the primary.
func isPrimary(role *goredis.Cmd) error {
	if _, wrote := role.Val().(int64); wrote && role.Err() == nil {
		return nil
	}
	if is, err := role.Slice(); err != nil || len(is) == 0 || is[0] != "master" {
		return errors.Join(errReplica, err)
	}
	return nil
}

// verify makes sure, before a link is used, that the server continues from the history that the
// node has seen. Later there may be newer entries to compare, which prove nothing.
func (p *partition) verify(ctx context.Context, c goredis.Cmdable) error {
	p.mu.Lock()
	epoch, memory := p.feed.Epoch(), p.feed.Memory()
	p.mu.Unlock()
	if epoch == "" {
		return nil
	}
	seen, err := p.lookAt(ctx, c, epoch, p.positions(memory))
	if err != nil || seen == nil { // callers that need the history detect the loss
		return err
	}
	if proof := seen.Lacks(memory); proof != "" {
		p.lost(epoch, proof)
		return p.renew(ctx, c, epoch)
	}
	return nil
}

func (p *partition) positions(of []feed.Entry) []adapter.Position {
	list := make([]adapter.Position, len(of))
	for i, e := range of {
		list[i] = e.Position(p.number, 0)
	}
	return list
}

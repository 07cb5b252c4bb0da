package redisurl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Denied queries all primaries for those of some commands that the URL's user must not run, or not
// on these keys and channels, and those that the server does not have. It returns one line for
// each: the command, the key or channel, and the server's reason.
//
// Nothing is executed: the commands are queued in a transaction that is never executed, because
// Redis checks rights when it queues. So each needs a valid number of arguments. The command exec
// is the exception: it is tried first, alone.
func (t *Target) Denied(ctx context.Context, commands ...[]any) ([]string, error) {
	servers, err := t.primaries(ctx)
	if err != nil {
		return nil, fmt.Errorf("redisurl: rights: %w", err)
	}
	var all []string
	for _, o := range servers {
		denied, err := deniedBy(ctx, o, commands)
		if err != nil {
			return nil, fmt.Errorf("redisurl: rights at %s: %w", o.Addr, err)
		}
		for _, line := range denied {
			if !slices.Contains(all, line) {
				all = append(all, line)
			}
		}
	}
	return all, nil
}

func deniedBy(ctx context.Context, o *redis.Options, commands [][]any) (denied []string, err error) {
	note := func(command []any, err error) {
		if reason := denial(err); reason != "" {
			denied = append(denied, describe(command)+": "+reason)
		}
	}
	err = with(ctx, o, func(c *redis.Client) error {
		conn := c.Conn() // ends with the client, and the transaction with it
		defer func() { _ = conn.Close() }()
		var queued [][]any
		for _, command := range commands {
			if command[0] == "exec" {
				err := conn.Do(ctx, command...).Err()
				note(command, err)
				if err != nil && !isReply(err) {
					return err
				}
			} else {
				queued = append(queued, command)
			}
		}
		// Without MULTI the commands would be executed.
		if err := conn.Do(ctx, "multi").Err(); err != nil {
			if !isReply(err) || denial(err) == "" {
				return err
			}
			note([]any{"multi"}, err)
			return nil
		}
		pipe := conn.Pipeline()
		replies := make([]*redis.Cmd, len(queued))
		for i, command := range queued {
			replies[i] = pipe.Do(ctx, command...)
		}
		_, _ = pipe.Exec(ctx)
		for i, command := range queued {
			err := replies[i].Err()
			if err != nil && !isReply(err) {
				return err
			}
			note(command, err)
		}
		return nil
	})
	return denied, err
}

func isReply(err error) bool {
	_, ok := errors.AsType[redis.Error](err)
	return ok
}

// denial returns a server's reason never to run a command, or "".
func denial(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	// The reply to a refused transaction begins with other words.
	if strings.Contains(text, "NOPERM") || strings.HasPrefix(text, "ERR unknown") {
		return strings.TrimSpace(strings.Map(func(r rune) rune {
			if r < ' ' {
				return ' '
			}
			return r
		}, text))
	}
	return ""
}

// describe returns a command with its subcommand, key or channel.
func describe(command []any) string {
	if len(command) == 1 || command[0] == "eval" || command[0] == "evalsha" {
		return fmt.Sprint(command[0])
	}
	return fmt.Sprint(command[0], " ", command[1])
}

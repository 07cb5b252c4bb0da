package redis

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// The answers of the scripts.
const (
	absent = 0 // there is no such session
	fenced = 1 // its fence, or for a claim anything, is another
	done   = 2 // it was written, or a later write has been
)

// Numbers are compared as numbers, since Lua compares strings by the server's
// locale.
var (
	// save: value, ttl.
	save = newScript(`
local old = redis.call('GETRANGE', KEYS[1], 0, 31)
if old == '' then return 0 end
if string.sub(old, 1, 16) ~= string.sub(ARGV[1], 1, 16) then return 1 end
if tonumber(string.sub(old, 17)) < tonumber(string.sub(ARGV[1], 17, 32)) then
	redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 2`)

	// claim: the head that was seen, value, ttl.
	claim = newScript(`
local old = redis.call('GETRANGE', KEYS[1], 0, 31)
if old == '' then return 0 end
if old ~= ARGV[1] then return 1 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 2`)

	// refresh: fence, ttl.
	refresh = newScript(`
if redis.call('GETRANGE', KEYS[1], 0, 15) ~= ARGV[1] then return 1 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 2`)

	// drop: head.
	drop = newScript(`
local old = redis.call('GETRANGE', KEYS[1], 0, 31)
if old == '' then return 0 end
if string.sub(old, 1, 16) ~= string.sub(ARGV[1], 1, 16) then return 1 end
if tonumber(string.sub(old, 17)) < tonumber(string.sub(ARGV[1], 17, 32)) then
	redis.call('DEL', KEYS[1])
end
return 2`)
)

// A script is known to Redis by its hash, if it is known.
type script struct{ text, hash string }

func newScript(text string) script { return script{text, redis.NewScript(text).Hash()} }

// run returns the command that runs the script on a key.
func (s script) run(ctx context.Context, key string, args ...any) item {
	all := append([]any{"evalsha", s.hash, 1, key}, args...)
	return item{key: key, cmd: redis.NewCmd(ctx, all...), text: s.text}
}

// verdict returns what the script answered.
func (it item) verdict() (int, error) { return it.cmd.(*redis.Cmd).Int() }

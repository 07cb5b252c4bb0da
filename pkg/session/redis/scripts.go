package redis

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// Results of scripts, which are followed by the server's time if the script reads it.
const (
	absent = 0 // there is no such session
	fenced = 1 // its fence differs; for claim, its head; for create, the key exists
	done   = 2 // it was written, or a later write was
	late   = 3 // the requested TTL has expired
)

// Scripts that set a TTL begin with this: when it was requested, and its length. The TTL counts
// from then, by the server's time. If that time has decreased, or another server with a slower clock
// answers, the TTL is not longer than requested.
const (
	now = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)`
	life = now + `
local life = math.min(ARGV[2], ARGV[1] + ARGV[2] - now)
if life <= 0 then return {3, now} end`
	argAsked = 4 // of the command
)

// Numbers are compared as numbers, because Lua compares strings by the server's locale.
var (
	// create: asked, ttl, value.
	create = newScript(life + `
if not redis.call('SET', KEYS[1], ARGV[3], 'NX', 'PX', life) then return {1, now} end
return {2, now}`)

	// save: asked, ttl, value.
	save = newScript(life + `
local old = redis.call('GETRANGE', KEYS[1], 0, 31)
if old == '' then return {0, now} end
if string.sub(old, 1, 16) ~= string.sub(ARGV[3], 1, 16) then return {1, now} end
if tonumber(string.sub(old, 17)) < tonumber(string.sub(ARGV[3], 17, 32)) then
	redis.call('SET', KEYS[1], ARGV[3], 'PX', life)
end
return {2, now}`)

	// claim: asked, ttl, the head that was seen, value.
	claim = newScript(life + `
local old = redis.call('GETRANGE', KEYS[1], 0, 31)
if old == '' then return {0, now} end
if old ~= ARGV[3] then return {1, now} end
redis.call('SET', KEYS[1], ARGV[4], 'PX', life)
return {2, now}`)

	// refresh: asked, ttl, fence.
	refresh = newScript(life + `
if redis.call('GETRANGE', KEYS[1], 0, 15) ~= ARGV[3] then return {1, now} end
redis.call('PEXPIRE', KEYS[1], life)
return {2, now}`)

	// drop: head.
	drop = newScript(`
local old = redis.call('GETRANGE', KEYS[1], 0, 31)
if old == '' then return {0} end
if string.sub(old, 1, 16) ~= string.sub(ARGV[1], 1, 16) then return {1} end
if tonumber(string.sub(old, 17)) < tonumber(string.sub(ARGV[1], 17, 32)) then
	redis.call('DEL', KEYS[1])
end
return {2}`)

	// askTime only reads the server's time.
	askTime = newScript(now + `
return {2, now}`)
)

// A script is identified in Redis by its hash, if Redis has it.
type script struct{ text, hash string }

func newScript(text string) script { return script{text, redis.NewScript(text).Hash()} }

// run returns the command that runs the script on a key.
func (s script) run(ctx context.Context, key string, args ...any) item {
	all := append([]any{"evalsha", s.hash, 1, key}, args...)
	return item{key: key, cmd: redis.NewCmd(ctx, all...), text: s.text}
}

// give returns the command that runs the script on a key and sets its TTL from a time on.
func (s script) give(ctx context.Context, key string, asked time.Time, ttl time.Duration, args ...any) item {
	it := s.run(ctx, key, append([]any{"", max(1, ttl.Milliseconds())}, args...)...)
	it.asked = asked
	return it
}

// answer returns the script's result, with 0 for a time that it does not return.
func (it item) answer() (verdict, time int64, err error) {
	cmd, ok := it.cmd.(*redis.Cmd)
	if !ok {
		return done, 0, nil
	}
	switch numbers, err := cmd.Int64Slice(); {
	case err != nil:
		return 0, 0, err
	case len(numbers) == 1:
		return numbers[0], 0, nil
	case len(numbers) == 2:
		return numbers[0], numbers[1], nil
	}
	return 0, 0, errValue
}

-- Takes or prolongs the lease on a node id, and lists the nodes.
-- KEYS: leases, about. ARGV: the id, the holder's secret, milliseconds, what the node says of itself.
-- Returns id, what it says of itself, and so on; nothing if another holds the id.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
	redis.call('ZREM', KEYS[1], gone)
	redis.call('HDEL', KEYS[2], gone)
end
local said = redis.call('HGET', KEYS[2], ARGV[1])
if said and string.sub(said, 1, #ARGV[2]) ~= ARGV[2] then
	return {}
end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. ARGV[4])
return redis.call('HGETALL', KEYS[2])

-- A key: value, TTL in milliseconds. Returns nothing if the key was free, or if it
-- already holds this claim, which was sent twice. Otherwise returns its value and its
-- remaining TTL.
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return false end
local there = redis.call('GET', KEYS[1])
if string.sub(there, 1, 26) == string.sub(ARGV[1], 1, 26) then return false end
return {there, redis.call('PTTL', KEYS[1])}

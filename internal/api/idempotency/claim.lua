-- A key: value, TTL in milliseconds. Returns nothing if the key was free, or if it
-- already holds this claim, which was sent twice. Otherwise returns its value and its
-- remaining TTL. A value that no node has written may be cut short, because it could have any size.
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return false end
local there = redis.call('GETRANGE', KEYS[1], 0, 1048575)
if string.sub(there, 1, 26) == string.sub(ARGV[1], 1, 26) then return false end
return {there, redis.call('PTTL', KEYS[1])}

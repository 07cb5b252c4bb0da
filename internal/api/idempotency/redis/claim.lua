-- A key: value, life in milliseconds. Nothing if it was free, or if it is this
-- claim's, which was sent twice. Else the value that is there and what is left of
-- its life.
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return false end
local there = redis.call('GET', KEYS[1])
if string.sub(there, 1, 26) == string.sub(ARGV[1], 1, 26) then return false end
return {there, redis.call('PTTL', KEYS[1])}

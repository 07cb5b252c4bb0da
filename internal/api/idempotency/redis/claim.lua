-- A key: value, life in milliseconds. Nothing if it was free, else the value that
-- is there and what is left of its life.
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return false end
return {redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])}

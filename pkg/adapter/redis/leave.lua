-- Gives a lease up. KEYS: leases, about. ARGV: the id, the holder's secret.
local said = redis.call('HGET', KEYS[2], ARGV[1])
if said and string.sub(said, 1, #ARGV[2]) == ARGV[2] then
	redis.call('ZREM', KEYS[1], ARGV[1])
	redis.call('HDEL', KEYS[2], ARGV[1])
end
return 1

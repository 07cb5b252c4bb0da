-- A key: the claim's id, value. Returns 1 if the key holds that claim.
if redis.call('GETRANGE', KEYS[1], 0, 25) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1

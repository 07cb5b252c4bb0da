-- A key: the claim's id.
if redis.call('GETRANGE', KEYS[1], 0, 25) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])

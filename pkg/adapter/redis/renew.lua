-- Begins a new history where the current one is still the one that was found lost.
-- KEYS: the name of the epoch, the lost clock, the new clock. ARGV: the lost epoch, the new one, the channel for news.
-- Returns the epoch that is current now.
local current = redis.call('GET', KEYS[1]) or ''
if current ~= ARGV[1] then
	return current
end
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], ARGV[2])
redis.call('XADD', KEYS[3], '*', 'c', 'begin')
redis.call('PUBLISH', ARGV[3], ARGV[2])
return ARGV[2]

-- Publishes the events of one call.
-- KEYS: the clock, then each event's rooms; a room's backlog and its channel have one name.
-- ARGV: the call's id, the oldest time to keep in the clock, length and life of a backlog,
--       then for each event: payload, whether it is stored, how many rooms.
-- Returns the call's entry in the clock, then how many subscribers each event reached.
local id = redis.call('XADD', KEYS[1], 'NOMKSTREAM', 'MINID', '~', ARGV[2], '*', 'c', ARGV[1])
if not id then
	return redis.error_reply('NOCLOCK the history was lost')
end
local dash = string.find(id, '-', 1, true)
local ms, first = string.sub(id, 1, dash), tonumber(string.sub(id, dash + 1)) * 1024
local reply, key = {id}, 2
for arg = 5, #ARGV, 3 do
	local position = ms .. string.format('%.0f', first + #reply - 1)
	local message, receivers = position .. ' ' .. ARGV[arg], 0
	for _ = 1, tonumber(ARGV[arg + 2]) do
		if ARGV[arg + 1] == '1' then
			redis.call('XADD', KEYS[key], 'MAXLEN', '~', ARGV[3], position, 'e', ARGV[arg])
			redis.call('PEXPIRE', KEYS[key], ARGV[4])
		end
		receivers = receivers + redis.call('PUBLISH', KEYS[key], message)
		key = key + 1
	end
	reply[#reply + 1] = receivers
end
return reply

-- Publishes the events of one call.
-- KEYS: the clock, the lists, the sizes, then for each event the key of its once id, if it has one, and its rooms; a room's
--       backlog and its channel have one name.
-- ARGV: the call's id, the oldest time to keep in the clock, length and life of a backlog, the oldest time to keep in the
--       lists, then for each event: payload, how, how many rooms, its lists or ''. how is whether it is stored, 1 or 0; if it
--       has a once id, s or n in place of that digit, the 11 characters of the content, and the time until which it may be
--       published, if that is limited.
-- Returns the call's entry in the clock, then for each event how many subscribers it reached and, if any are, how many of its
-- rooms are new: without a subscriber, and not stored before. Or else the key that could not be written and why. A room whose
-- backlog can't be written does not get the event, and nothing else fails; an event whose lists can't be written is not
-- published. A second entry in the clock says which events had such keys.
-- An event whose once key exists is not published: its value and its TTL are returned, in a table, or '' if the key is missing
-- and it is too late. The value is the event's position, the first 12 characters of how, and, if some of its rooms could not be written, why.
local id = redis.call('XADD', KEYS[1], 'NOMKSTREAM', 'MINID', '~', ARGV[2], '*', 'c', ARGV[1])
if not id then
	return redis.error_reply('NOCLOCK the history was lost')
end
local dash = string.find(id, '-', 1, true)
local ms, first = string.sub(id, 1, dash), tonumber(string.sub(id, dash + 1)) * 1024
local reply, key, failed, largest = {id}, 4, nil, 0
for arg = 6, #ARGV, 4 do
	local position = ms .. string.format('%.0f', first + #reply - 1)
	local how, rooms, lists = ARGV[arg + 1], tonumber(ARGV[arg + 2]), ARGV[arg + 3]
	local stored, once, value, former, bad = how == '1'
	if #how > 1 then
		once, key, stored, value = KEYS[key], key + 1, string.byte(how) == 115, position .. how
		local late = false
		if #how > 12 then
			late, value = tonumber(string.sub(ms, 1, -2)) > tonumber(string.sub(how, 13)), position .. string.sub(how, 1, 12)
		end
		if late or not redis.call('SET', once, value, 'PX', '600000', 'NX') then
			former = redis.pcall('GET', once) or ''
			bad = type(former) == 'table' and once .. ': ' .. former.err or nil
			stored, key, rooms, lists = false, key + rooms, 0, ''
		end
	end
	if lists ~= '' then
		if stored then
			local added = redis.pcall('XADD', KEYS[2], 'MINID', '~', ARGV[5], position, 'e', lists)
			if type(added) == 'table' then
				bad, key, rooms = KEYS[2] .. ': ' .. added.err, key + rooms, 0
			else
				redis.call('PEXPIRE', KEYS[2], ARGV[4])
			end
		end
		if not bad then
			redis.call('PUBLISH', KEYS[2], position .. ' ' .. lists)
		end
	end
	if stored and #ARGV[arg] > largest then
		largest = #ARGV[arg]
	end
	local last, receivers, news = position .. ' ' .. ARGV[arg], 0, 0
	local more = rooms > 1 and position .. '~' .. ARGV[arg]
	for left = rooms - 1, 0, -1 do
		local added
		if stored then
			added = redis.pcall('XADD', KEYS[key], 'MAXLEN', '~', ARGV[3], position, 'e', ARGV[arg])
		end
		if type(added) == 'table' then
			bad = KEYS[key] .. ': ' .. added.err
		else
			if stored then
				redis.call('PEXPIRE', KEYS[key], ARGV[4])
			end
			local heard = redis.call('PUBLISH', KEYS[key], left > 0 and more or last)
			receivers = receivers + heard
			if stored and heard == 0 and #redis.call('XRANGE', KEYS[key], '-', '(' .. position, 'COUNT', 1) == 0 then
				news = news + 1
			end
		end
		key = key + 1
	end
	if once and bad and rooms > 1 then
		redis.call('SET', once, value .. bad, 'PX', '600000')
	elseif once and bad and not former then
		redis.call('DEL', once)
	end
	if bad then
		failed = (failed and failed .. ',' or '') .. (#reply - 1)
	end
	reply[#reply + 1] = bad or former and {former, redis.call('PTTL', once)} or news > 0 and {receivers, news} or receivers
end
if largest > 256 then -- smaller ones are told apart by nobody
	local period = string.format('%.0f', math.floor(tonumber(string.sub(id, 1, dash - 1)) / ARGV[4]))
	local known = redis.pcall('HGET', KEYS[3], period)
	if not known or type(known) == 'string' and (tonumber(known) or 0) < largest then
		local all = not known and redis.call('HGETALL', KEYS[3]) or {}
		for i = 1, #all, 2 do
			if (tonumber(all[i]) or 0) < period - 1 then
				redis.call('HDEL', KEYS[3], all[i])
			end
		end
		redis.call('HSET', KEYS[3], period, largest)
		redis.call('PEXPIRE', KEYS[3], 2 * ARGV[4])
	end
end
if failed then
	redis.call('XADD', KEYS[1], '*', 'c', ARGV[1], 'f', failed)
end
return reply

-- Reads what backlogs hold behind a position each, until so much has been read that the rest must wait. A range of a stream can be
-- bounded by the number of its entries only, so a few are read at a time, and more where they are small.
-- KEYS: the backlogs. ARGV: the size from which on to stop, how much of the events' payloads may be returned, and the maximum number
-- of entries that are read at a time, because one that is large can follow many small ones; the maximum number of rooms that an event
-- lists; then for each key the maximum number of entries and the position.
-- Returns 'more' if the last list goes on, or ''; then a list for each backlog that was read: its entries' ids and events. In place
-- of an event there is a list of what stands in front of its payload and the payload's size if that may not be returned, and 0 if
-- the event is the one that was last returned with this id. Of one that is not well-formed there are its first bytes, with the version.
-- In place of a list there is the error if the key holds no stream.
local overhead = 256 -- of an entry, beside its event: many small ones take time, too
local left, hold, widest, listable = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local unseen = 4 * left -- of what is read, as not all of it is returned
local reply, returned = {''}, {}

-- What follows reads an event as wire.go writes it, from at on. Rooms are listed until more than the maximum were: Redis does nothing
-- else meanwhile.
local at, listed
local function number(s)
	local n, unit = 0, 1
	for _ = 1, 10 do
		local c = s:byte(at) or 0
		at = at + 1
		if c < 128 then
			return n + c * unit
		end
		n, unit = n + (c - 128) * unit, unit * 128
	end
	return n
end
local function skip(s)
	local n = number(s)
	at = at + n
	return n
end
local function skipRooms(s)
	local n = number(s)
	listed = listed + n
	for _ = 1, n do
		if at > #s or listed > listable then
			at = #s + 2
			return
		end
		at = at + 1
		skip(s)
		skip(s)
	end
end

-- cut returns what stands in front of a payload, and its size; nothing if it is empty. Of an event that is not one of a known version it
-- returns the first bytes.
local function cut(s)
	local version, how = s:byte(1), s:byte(4)
	if not how or version < 1 or version > 2 then
		return s:sub(1, 4), #s
	end
	at, listed = 5, 0
	skip(s)
	skip(s)
	if version == 1 then
		skipRooms(s)
	end
	if how % 4 < 2 then -- its lists are not stored apart
		skipRooms(s)
		for _ = 1, math.min(number(s), listable) do
			if at > #s then
				break
			end
			number(s)
			number(s)
			at = at + 1
			skipRooms(s)
		end
	end
	local head = at - 1
	local size = skip(s)
	for _ = 1, math.min(number(s), listable) do
		if at > #s then
			break
		end
		size = size + skip(s)
	end
	if at ~= #s + 1 then
		return s:sub(1, 4), #s
	end
	if size > 0 then
		return s:sub(1, head), size
	end
end

for k, key in ipairs(KEYS) do
	local list, most, count, bytes, step = {}, tonumber(ARGV[2 * k + 3]), 0, 0, 4
	local last = '(' .. ARGV[2 * k + 4]
	reply[k + 1] = list
	while count < most do
		step = math.min(step, widest, most - count)
		local read = redis.pcall('XRANGE', key, last, '+', 'COUNT', step)
		if read.err then
			reply[k + 1] = read
			break
		end
		for _, entry in ipairs(read) do
			if left <= 0 or unseen <= 0 then
				reply[1] = 'more'
				return reply
			end
			local id, event = entry[1], entry[2][1] == 'e' and entry[2][2] or ''
			count = count + 1
			bytes = bytes + #event + overhead
			unseen = unseen - #event - overhead
			left = left - overhead
			list[#list + 1] = id
			if #event > 64 and returned[id] == event then
				list[#list + 1] = 0
			else
				returned[id] = event
				local head, size
				if #event > hold then
					head, size = cut(event)
				end
				if head then
					left = left - #head
					list[#list + 1] = {head, size}
				else
					left = left - #event
					hold = hold - #event
					list[#list + 1] = event
				end
			end
			last = '(' .. id
		end
		if #read < step then
			break
		end
		step = math.max(1, math.min(4 * step, math.ceil(unseen * count / bytes)))
	end
end
return reply

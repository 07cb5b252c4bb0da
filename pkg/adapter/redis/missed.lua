-- Reads what backlogs hold behind a position each, until so much has been read that the rest must wait. A range of a stream can be
-- bounded by the number of its entries only, so a few are read at a time, and more where they are small.
-- KEYS: the backlogs. ARGV: the size from which on to stop; then for each key the maximum number of entries and the position.
-- Returns 'more' if the last list goes on, or ''; then a list for each backlog that was read: its entries' ids and payloads. In
-- place of a list there is the error if the key holds no stream.
local overhead = 256 -- of an entry, beside its payload: many small ones take time, too
local left = tonumber(ARGV[1])
local reply = {''}
for k, key in ipairs(KEYS) do
	local list, most, count, bytes, step = {}, tonumber(ARGV[2 * k]), 0, 0, 4
	local last = '(' .. ARGV[2 * k + 1]
	reply[k + 1] = list
	while count < most do
		step = math.min(step, most - count)
		local read = redis.pcall('XRANGE', key, last, '+', 'COUNT', step)
		if read.err then
			reply[k + 1] = read
			break
		end
		for _, entry in ipairs(read) do
			if left <= 0 then
				reply[1] = 'more'
				return reply
			end
			local payload = entry[2][1] == 'e' and entry[2][2] or ''
			count = count + 1
			bytes = bytes + #payload + overhead
			left = left - #payload - overhead
			list[#list + 1] = entry[1]
			list[#list + 1] = payload
			last = '(' .. entry[1]
		end
		if #read < step then
			break
		end
		step = math.max(1, math.min(4 * step, math.ceil(left * count / bytes)))
	end
end
return reply

-- Reads a page of a backlog, from its end. A range of a stream can be bounded by the number of its entries only, so a few are
-- read at a time.
-- KEYS: the backlog. ARGV: the end, the maximum number of entries, the maximum size of their payloads together (0 for none).
-- Returns 'more' or '', then each entry's id and payload, the newest first.
local last, entries, bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local reply, size, step = {''}, 0, 4
while true do
	local read = redis.call('XREVRANGE', KEYS[1], last, '-', 'COUNT', step)
	for _, entry in ipairs(read) do
		local payload = entry[2][1] == 'e' and entry[2][2] or ''
		size = size + #payload
		if #reply > 2 * entries or bytes > 0 and size > bytes and #reply > 1 then
			reply[1] = 'more'
			return reply
		end
		reply[#reply + 1] = entry[1]
		reply[#reply + 1] = payload
		last = '(' .. entry[1]
	end
	if #read < step then
		return reply
	end
end

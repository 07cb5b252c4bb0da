-- Reads a page of a backlog, from its end. A range of a stream can be bounded by the number of its entries only, so a few are
-- read at a time.
-- KEYS: the backlog. ARGV: the end, the maximum number of entries, the maximum size of their payloads together (0 for none), the
-- position after which the page begins ('' for none), the number of entries up to which a backlog has never been trimmed.
-- Returns a word, then each entry's id and payload, the newest first. The word is 'more' if older entries after the beginning are
-- kept; otherwise 'lost' if some may have been trimmed, 'begun' if none is at or before it, and '' in all other cases.
local last, entries, bytes, after, whole = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local first = after == '' and '-' or '(' .. after
local reply, size, step = {''}, 0, 4
local read
repeat
	read = redis.call('XREVRANGE', KEYS[1], last, first, 'COUNT', step)
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
until #read < step
if after ~= '' and #redis.call('XREVRANGE', KEYS[1], after, '-', 'COUNT', 1) == 0 then
	local most, later = 100, 0 -- entries behind the page count as well
	if ARGV[1] ~= '+' then
		local from = ARGV[1]:sub(1, 1) == '(' and ARGV[1]:sub(2) or '(' .. ARGV[1]
		later = #redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', most)
	end
	reply[1] = (later == most or (#reply - 1) / 2 + later > whole) and 'lost' or 'begun'
end
return reply

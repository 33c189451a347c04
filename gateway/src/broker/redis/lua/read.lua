-- Reads a part of what a room remembers, together with the position reached.
--
-- KEYS: meta, top and stream of the room.
-- ARGV: eight letters, the epoch of a room that has none yet; meta_ttl in seconds, '0' for ever; how many; the offset after
-- which (before which) they begin, '' from the beginning (the end); '1' for the newest first.
--
-- Answers the place reached, as in append.lua, and the entries of the stream.
local meta, top, stream = KEYS[1], KEYS[2], KEYS[3]
local letters, meta_ttl, limit, since, reverse = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5] == '1'
local ttl = meta_ttl + math.floor(meta_ttl / 16)

local values = redis.call('MGET', meta, top)
local state, offset = values[1], tonumber(values[2] or '0')
if not state or (offset == 0 and string.sub(state, 9, 18) ~= '0000000000') then
  -- Versions outlive the counter, which is all that was lost.
  state = letters .. '00000000000000000000' .. (state and string.sub(state, 29) or '')
  offset = 0
  redis.call('DEL', top, stream)
  if meta_ttl > 0 then
    redis.call('SET', meta, state, 'EX', ttl)
  else
    redis.call('SET', meta, state)
  end
elseif meta_ttl > 0 then
  redis.call('EXPIRE', meta, ttl)
  redis.call('EXPIRE', top, ttl)
else
  redis.call('PERSIST', meta)
  redis.call('PERSIST', top)
end

local place = string.format('%020d', offset) .. string.sub(state, 1, 8)
if limit == 0 then return { place, {} } end
-- A stream may hold more than its size, as it is cut seldom.
local first = offset - tonumber(string.sub(state, 19, 28)) + 1
if first < 1 then first = 1 end
local last = offset
if since ~= '' and reverse then
  last = math.min(last, tonumber(since) - 1)
elseif since ~= '' then
  first = math.max(first, tonumber(since) + 1)
end
if first > last then return { place, {} } end
first, last = string.format('%d-0', first), string.format('%d-0', last)
if reverse then return { place, redis.call('XREVRANGE', stream, last, first, 'COUNT', limit) } end
return { place, redis.call('XRANGE', stream, first, last, 'COUNT', limit) }

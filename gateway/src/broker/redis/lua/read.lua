-- Reads a part of what a room remembers, together with the position reached.
--
-- KEYS: meta, top and stream of the room.
-- ARGV: eight letters, the epoch of a room that has none yet; meta_ttl in seconds, '0' for ever; how many; the offset after
-- which (before which) they begin, '' from the beginning (the end); '1' for the newest first.
--
-- Answers the place reached, as in append.lua; entries of the stream, enough for the limit and at most one more than needed;
-- and the first and the last offset that are wanted, since the first and the last entry may be packs that have others too.
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
if limit == 0 then return { place, {}, 1, 0 } end
-- A stream may hold more than its size, as it is cut seldom.
local first = offset - tonumber(string.sub(state, 19, 28)) + 1
if first < 1 then first = 1 end
local last = offset
if since ~= '' and reverse then
  last = math.min(last, tonumber(since) - 1)
elseif since ~= '' then
  first = math.max(first, tonumber(since) + 1)
end
if first > last then return { place, {}, 1, 0 } end

-- An entry has the offset of its last publication as its id, so that the one with a publication is the first whose id is not
-- below it.
local from, to, command = string.format('%d-0', first), string.format('%d-0', last), 'XRANGE'
if reverse then
  local newest = last < offset and redis.call('XRANGE', stream, to, '+', 'COUNT', 1)[1]
  from, to, command = newest and newest[1] or to, from, 'XREVRANGE'
end

-- How many publications of an entry are wanted. What is not understood counts as one, so that the node sees it.
local function wanted(entry)
  local id, n = tonumber(string.match(entry[1], '^%d+')), tonumber(string.match(entry[2][1], '^%d+$')) or 1
  return math.min(id, last) - math.max(id - math.max(n, 1), first - 1)
end

-- Where all that is wanted is below the limit one call gives it. Else it is asked for little by little, since a pack may have
-- more than the limit.
local entries, found, step = {}, 0, last - first < limit and limit or 16
repeat
  local count = math.min(step, limit - found)
  local part = redis.call(command, stream, from, to, 'COUNT', count)
  for _, entry in ipairs(part) do
    local more = found < limit and wanted(entry) or 0
    if more > 0 then
      found = found + more
      entries[#entries + 1] = entry
    end
  end
  from, step = #part > 0 and '(' .. part[#part][1], step * 2
until #part < count or found >= limit
return { place, entries, first, last }

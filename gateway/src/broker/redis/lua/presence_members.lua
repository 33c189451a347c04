-- A page of those in the room, in the order of their names: the name after which the next page begins, empty where there is
-- none, and what is known of each. Arguments: the name after which to begin, how many at most.
expire()
local cursor, limit = ARGV[1], tonumber(ARGV[2])
local from = cursor == '' and '-' or '(' .. cursor
local clients = redis.call('ZRANGEBYLEX', names, from, '+', 'LIMIT', 0, limit + 1)
local page, last = {}, ''
if #clients > limit then
  table.remove(clients)
  last = clients[limit]
end
if #clients > 0 then
  local known = redis.call('HMGET', infos, unpack(clients))
  local over = redis.call('ZMSCORE', ends, unpack(clients))
  for place, info in ipairs(known) do
    if info and over[place] and tonumber(over[place]) > now then
      page[#page + 1] = info
    end
  end
end
return {last, page}

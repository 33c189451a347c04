-- A client is in the room for a while from now on, unless as many others are there as may; whether it is. Arguments:
-- milliseconds, how many may be there, the client's name and what is known of it.
local ttl, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local client, info = ARGV[3], ARGV[4]
expire()
local known = redis.call('HGET', infos, client)
if not known and redis.call('ZCOUNT', ends, '(' .. now, '+inf') >= limit then
  return 0
end
put(client, info, known, ttl)
keep(ttl)
return 1

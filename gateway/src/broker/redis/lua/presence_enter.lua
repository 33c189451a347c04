-- A client is in the room for a while from now on, unless as many others are there as may; whether it is. Arguments:
-- milliseconds, how many may be there, the client's name and what is known of it.
local ttl, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local client, info = ARGV[3], ARGV[4]
expire()
local known = redis.call('HGET', infos, client)
if not known and redis.call('ZCOUNT', ends, '(' .. now, '+inf') >= limit then
  return 0
end
if known then
  count(known, -1)
else
  redis.call('ZADD', names, 0, client)
end
redis.call('HSET', infos, client, info)
count(info, 1)
redis.call('ZADD', ends, now + ttl, client)
for _, key in ipairs(KEYS) do
  if redis.call('PTTL', key) < ttl then
    redis.call('PEXPIRE', key, ttl)
  end
end
return 1

-- Clients are in the room for a while from now on. Arguments: milliseconds, then of each client its name and what is known.
local ttl = tonumber(ARGV[1])
for place = 2, #ARGV, 2 do
  local client, info = ARGV[place], ARGV[place + 1]
  local known = redis.call('HGET', infos, client)
  if known ~= info then
    if known then
      count(known, -1)
    else
      redis.call('ZADD', names, 0, client)
    end
    redis.call('HSET', infos, client, info)
    count(info, 1)
  end
  redis.call('ZADD', ends, now + ttl, client)
end
expire()
-- The keys of a room that everybody has forgotten go by themselves, all at once.
for _, key in ipairs(KEYS) do
  if redis.call('PTTL', key) < ttl then
    redis.call('PEXPIRE', key, ttl)
  end
end

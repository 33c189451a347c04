-- Clients are in the room for a while from now on. Arguments: milliseconds, then of each client its name and what is known.
local ttl = tonumber(ARGV[1])
for place = 2, #ARGV, 2 do
  local client, info = ARGV[place], ARGV[place + 1]
  put(client, info, redis.call('HGET', infos, client), ttl)
end
expire()
keep(ttl)

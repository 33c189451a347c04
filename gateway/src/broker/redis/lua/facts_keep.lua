-- Keeps a fact, and forgets some whose time is over. Arguments: its name, what it says, milliseconds.
local name, fact, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
local over = redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 500)
if #over > 0 then
  redis.call('HDEL', facts, unpack(over))
  redis.call('ZREM', ends, unpack(over))
end
redis.call('HSET', facts, name, fact)
redis.call('ZADD', ends, now + ttl, name)
-- Redis counts whole milliseconds: one more, and the keys outlast the fact.
for _, key in ipairs(KEYS) do
  if redis.call('PTTL', key) <= ttl then
    redis.call('PEXPIRE', key, ttl + 1)
  end
end

-- Forgets a fact. Argument: its name.
redis.call('HDEL', facts, ARGV[1])
redis.call('ZREM', ends, ARGV[1])

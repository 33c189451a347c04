-- What the scripts of facts share. The keys: what each fact says (hash), and when its time is over (sorted set, milliseconds
-- with a fraction, so that none ends too early). All clocks are the server's.
local facts, ends = KEYS[1], KEYS[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000

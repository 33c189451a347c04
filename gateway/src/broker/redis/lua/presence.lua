-- What the scripts of presence share. The keys are those of one room: what is known of each client (hash), when the time of
-- each is over (sorted set, milliseconds), their names in order (sorted set without scores), and how many clients each user
-- has (hash). All clocks are the server's.
local infos, ends, names, users = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- The user is the first field of what is known of a client, unless it is empty: tag 10, its length, its bytes.
local function user_of(info)
  if string.byte(info, 1) ~= 10 then
    return ''
  end
  local length, place, unit, byte = 0, 2, 1, nil
  repeat
    byte = string.byte(info, place)
    length = length + byte % 128 * unit
    place, unit = place + 1, unit * 128
  until byte < 128
  return string.sub(info, place, place + length - 1)
end

local function count(info, by)
  local user = user_of(info)
  if redis.call('HINCRBY', users, user, by) <= 0 then
    redis.call('HDEL', users, user)
  end
end

local function remove(clients)
  local known = redis.call('HMGET', infos, unpack(clients))
  redis.call('HDEL', infos, unpack(clients))
  redis.call('ZREM', ends, unpack(clients))
  redis.call('ZREM', names, unpack(clients))
  for _, info in ipairs(known) do
    if info then
      count(info, -1)
    end
  end
end

-- Takes out clients whose time is over, a bounded number; whether there may be more of them.
local function expire()
  local most = 500
  local over = redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, most)
  if #over > 0 then
    remove(over)
  end
  return #over == most
end

-- A client is in the room for a while from now on. What was known of it, if anything, has been read.
local function put(client, info, known, ttl)
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

-- The keys of a room that everybody has forgotten go by themselves, all at once.
local function keep(ttl)
  for _, key in ipairs(KEYS) do
    if redis.call('PTTL', key) < ttl then
      redis.call('PEXPIRE', key, ttl)
    end
  end
end

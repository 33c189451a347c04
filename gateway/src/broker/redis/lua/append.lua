-- Publishes one after the other, each kept in its room's history where that is asked, and tells what became of each.
--
-- ARGV: eight letters, the epoch of rooms that have none yet; how many seconds the versions of rooms without history are
-- remembered; the command that publishes; then what is to be done, in order:
--   'K' size ttl meta_ttl              how much the following keep; seconds, meta_ttl '0' for ever
--   'P' n, then n times channel whole  publish
--   'H' counts, then for each byte of counts channel rest
--                                      publish and keep: so many publications of one room, which are a pack if not 1
--   'X' channel rest keep result_ttl version version_epoch
--                                      publish, keep if '1', with a result and a version where they are not ''
-- KEYS: for each that 'H' or 'X' asks for meta, top and stream, and the result after them where there is one.
--
-- An answer is 'F' (made now) or 'O' (left out, because of its result or version) and the place, which is absent without
-- history; or 'E' and why it was refused. A place is 20 digits, the offset, and the epoch. A pack has one answer, since all
-- of it is made or nothing, and its place is that of its last publication.
--
-- meta has 8 letters, the epoch; 10 digits, the time at which ttls were last set, 0 while top was never set; 10 digits, the
-- size; then, where there was a version, its 20 digits and its epoch. top has the offset. An entry of stream has as its id
-- the offset of its last publication, and one field: 'd' with the rest, or the number of publications with the pack of them.
--
-- Calls are what costs here. So a pack takes as many as a publication, the metas of many are read at once, a ttl is set to a
-- sixteenth more than asked and again when a sixteenth has passed, and a stream is cut after every eighth of its size: readers
-- cut the rest. What is cut has an id below the oldest publication to stay, so that a pack stays while any of it has to.
local letters, version_ttl, verb = ARGV[1], ARGV[2], ARGV[3]
local call, format, sub, byte, floor = redis.pcall, string.format, string.sub, string.byte, math.floor
local answers, key, at = {}, 1, 4
local size, size_digits, cut, ttl, meta_ttl, slack, now

local function error_of(reply)
  return type(reply) == 'table' and reply.err
end

local function keep(a, b, c)
  size, size_digits, ttl, meta_ttl = tonumber(a), format('%010d', a), tonumber(b), tonumber(c)
  cut = math.max(1, floor(size / 8))
  slack = floor(((meta_ttl > 0 and meta_ttl < ttl) and meta_ttl or ttl) / 16)
  now = now or tonumber(redis.call('TIME')[1])
end

-- Keeps what has this id and this name, cuts the stream, and sets every ttl; gives the new meta, or why not.
local function keep_anew(meta, top, stream, last, id, name, rest, epoch, tail)
  local done
  if last > size then
    done = call('XADD', stream, 'MINID', '~', format('%d-0', last - size + 1), id, name, rest)
  else
    done = call('XADD', stream, id, name, rest)
  end
  if error_of(done) then return nil, done.err end
  local state = epoch .. format('%010d', now) .. size_digits .. tail
  if meta_ttl > 0 then
    call('SET', meta, state, 'EX', meta_ttl + slack)
    call('EXPIRE', top, meta_ttl + slack)
  else
    call('SET', meta, state)
    call('PERSIST', top)
  end
  call('EXPIRE', stream, ttl + slack)
  return state
end

-- Keeps n publications of a room and publishes them: all of both, or nothing. Gives the answer, and meta where it has
-- changed. tail is what meta has to end with from now on, nil where that stays.
local function append(meta, top, stream, channel, n, rest, state, tail)
  local last = not state and n or n == 1 and call('INCR', top) or call('INCRBY', top, n)
  if error_of(last) then return 'E' .. last.err end
  if not state or (last == n and sub(state, 9, 18) ~= '0000000000') then
    -- Nothing is known, or the counter was lost: what there is of the stream is of an epoch that is over.
    tail = tail or state and sub(state, 29) or ''
    state = nil
    -- Of all that is written here this alone may be refused for want of memory: what follows on a write is not.
    local refused = error_of(call('SET', top, n))
    if refused then return 'E' .. refused end
    call('DEL', stream)
  end
  local epoch, digits = state and sub(state, 1, 8) or letters, format('%020d', last)
  local place, id, name = digits .. epoch, digits .. '-0', n == 1 and 'd' or n
  local added, changed, refused
  if state and not tail and sub(state, 19, 28) == size_digits then
    local age = now - sub(state, 9, 18)
    if age >= 0 and age < slack then
      if last % cut < n and last > size then
        added = call('XADD', stream, 'NOMKSTREAM', 'MINID', '~', format('%d-0', last - size + 1), id, name, rest)
      else
        added = call('XADD', stream, 'NOMKSTREAM', id, name, rest)
      end
      refused = error_of(added)
    end
  end
  if not added then
    changed, refused = keep_anew(meta, top, stream, last, id, name, rest, epoch, tail or sub(state, 29))
  end
  if refused then
    if state then call('DECRBY', top, n) else call('DEL', top) end
    return 'E' .. refused
  end
  refused = error_of(call(verb, channel, (n == 1 and '\2' or '\5') .. place .. rest))
  if refused then
    -- It was kept, and nobody was told: the epoch ends.
    call('DEL', meta, top, stream)
    return 'E' .. refused
  end
  return 'F' .. place, changed
end

local function publish(channel, whole)
  local refused = error_of(call(verb, channel, whole))
  return refused and 'E' .. refused or 'F'
end

local function append_many(counts)
  local metas, n = {}, #counts
  for i = 1, n do metas[i] = KEYS[key + 3 * i - 3] end
  local states = call('MGET', unpack(metas))
  local refused = error_of(states)
  for i = 1, n do
    local answer, changed
    if refused then
      answer = 'E' .. refused
    else
      answer, changed =
        append(metas[i], KEYS[key + 1], KEYS[key + 2], ARGV[at], byte(counts, i), ARGV[at + 1], states[i], nil)
    end
    if changed then
      for j = i + 1, n do
        if metas[j] == metas[i] then states[j] = changed end
      end
    elseif sub(answer, 1, 1) == 'E' and not refused then
      for j = i + 1, n do
        if metas[j] == metas[i] then states[j] = call('GET', metas[i]) end
      end
    end
    answers[#answers + 1] = answer
    key, at = key + 3, at + 2
  end
end

-- Whether a version is not above that of the last publication; without an epoch of its own it is compared with any.
local function is_passed(state, version, version_epoch)
  local same = version_epoch == '' or version_epoch == sub(state, 49)
  return #state > 28 and same and sub(state, 29, 48) >= version
end

local function remember_version(meta, state, tail)
  if state then return error_of(call('SET', meta, sub(state, 1, 28) .. tail, 'KEEPTTL')) end
  return error_of(call('SET', meta, letters .. '00000000000000000000' .. tail, 'EX', version_ttl))
end

local function append_guarded(meta, top, stream, channel, rest, kept, version, version_epoch)
  local state = call('GET', meta)
  if error_of(state) then return 'E' .. state.err end
  local tail
  if version ~= '' then
    if state and is_passed(state, version, version_epoch) then
      return 'O' .. (kept and format('%020d', tonumber(call('GET', top)) or 0) .. sub(state, 1, 8) or '')
    end
    tail = version .. version_epoch
  end
  if kept then return append(meta, top, stream, channel, 1, rest, state, tail) end
  local refused = tail and remember_version(meta, state, tail)
  if refused then return 'E' .. refused end
  return publish(channel, '\1' .. rest)
end

local function append_once()
  local result_ttl = ARGV[at + 3]
  local result = result_ttl ~= '' and KEYS[key + 3]
  local known = result and call('GET', result)
  local answer
  if error_of(known) then
    answer = 'E' .. known.err
  elseif known then
    answer = 'O' .. known
  else
    -- Where nothing else is written, the result may be refused for want of memory: so it comes first.
    local alone = result and ARGV[at + 2] ~= '1' and ARGV[at + 4] == ''
    local refused = alone and error_of(call('SET', result, '', 'EX', result_ttl))
    answer = refused and 'E' .. refused or append_guarded(KEYS[key], KEYS[key + 1], KEYS[key + 2], ARGV[at],
      ARGV[at + 1], ARGV[at + 2] == '1', ARGV[at + 4], ARGV[at + 5])
    local made = sub(answer, 1, 1) == 'F'
    if alone and not made then
      call('DEL', result)
    elseif result and made and not alone then
      call('SET', result, sub(answer, 2), 'EX', result_ttl)
    end
  end
  answers[#answers + 1] = answer
  key, at = key + (result and 4 or 3), at + 6
end

while ARGV[at] do
  local kind = ARGV[at]
  at = at + 1
  if kind == 'K' then
    keep(ARGV[at], ARGV[at + 1], ARGV[at + 2])
    at = at + 3
  elseif kind == 'X' then
    append_once()
  else
    local many = ARGV[at]
    at = at + 1
    if kind == 'H' then
      append_many(many)
    else
      for _ = 1, tonumber(many) do
        answers[#answers + 1] = publish(ARGV[at], ARGV[at + 1])
        at = at + 2
      end
    end
  end
end
return answers

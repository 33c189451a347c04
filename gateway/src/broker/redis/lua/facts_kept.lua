-- A part of the facts: where the next part begins ('0' where there is none), and of each its name, what it says, and the
-- milliseconds it has left, one after the other. One fact may come twice. Argument: where to begin, at first '0'.
local found = redis.call('HSCAN', facts, ARGV[1], 'COUNT', 500)
local part, words = {}, found[2]
for place = 1, #words, 2 do
  local over = redis.call('ZSCORE', ends, words[place])
  local left = over and math.ceil(tonumber(over) - now) or 0
  if left > 0 then
    part[#part + 1] = words[place]
    part[#part + 1] = words[place + 1]
    part[#part + 1] = left
  end
end
return {found[1], part}

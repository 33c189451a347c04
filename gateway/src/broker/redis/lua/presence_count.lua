-- How many clients and users are in the room, and whether the time of further ones may be over: then it has to be asked again.
local more = expire()
return {redis.call('HLEN', infos), redis.call('HLEN', users), more and 1 or 0}

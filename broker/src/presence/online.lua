-- The connections of several users, and since when each is online. A run whose lease is over does not count.
--
-- ARGV  1 prefix of the names, and then the users

local online = {}
for i = 2, #ARGV do
  local fields = redis.call('HGETALL', ARGV[1] .. 'presence:' .. ARGV[i])
  local connections, since = 0, -1
  for j = 1, #fields, 2 do
    if fields[j] == 'since' then
      since = tonumber(fields[j + 1])
    elseif redis.call('EXISTS', ARGV[1] .. 'lease:' .. fields[j]) == 1 then
      connections = connections + tonumber(fields[j + 1])
    end
  end
  online[#online + 1] = { connections, since }
end
return online

-- Raises the status of messages to one addressee; messages to another one stay as they are. After status.lua.
--
-- KEYS  1 sequence  2… hashes of messages
-- ARGV  7 the addressee  8 delivered or read  9… the ids of the messages

local changed = 0
for i = 2, #KEYS do
  local message = redis.call('HMGET', KEYS[i], 'from', 'to', 'status')
  if message[2] == ARGV[7] and raise(KEYS[i], message[1], ARGV[7 + i], message[3], ARGV[8]) then
    try('HSETNX', KEYS[i], 'acknowledged_by', appender)
    changed = changed + 1
  end
end
if changed > 0 then finish() end
return { changed, faults }

-- Records that a message was written to a connection of its addressee: the first few of them, for the trace.
--
-- KEYS  1 the hash of the message
-- ARGV  1 replica  2 connection  3 how many are kept

if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local count = redis.call('HINCRBY', KEYS[1], 'written', 1)
if count <= tonumber(ARGV[3]) then
  local time = redis.call('TIME')
  local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
  redis.call('HSET', KEYS[1], 'written:' .. string.format('%d', count), now .. ' ' .. ARGV[1] .. ' ' .. ARGV[2])
end
return count

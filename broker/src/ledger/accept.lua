-- Stores a message and puts it into the list, in one step. The same message again changes nothing.
--
-- KEYS  1 the hash of the message  2 list  3 ids:a  4 ids:b
-- ARGV  1 from  2 to  3 the entry  4 who accepts it  5 milliseconds that it is kept  6 entries that may wait
--       7 the channel of the wake-up  8 how the claim remembers its sender and id
-- Answers what became of it and its status.

local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
local known = redis.call('HMGET', KEYS[1], 'from', 'to', 'status')
if known[1] then
  if known[1] == ARGV[1] and known[2] == ARGV[2] then return { 'repeated', known[3] } end
  return { 'conflict', '' }
end
-- The claim would drop it: the sender has used the id for something else lately.
local id = ARGV[8]
if redis.call('SISMEMBER', KEYS[3], id) == 1 or redis.call('SISMEMBER', KEYS[4], id) == 1 then return { 'conflict', '' } end
if redis.call('LLEN', KEYS[2]) >= tonumber(ARGV[6]) then return { 'full', '' } end
redis.call('HSET', KEYS[1], 'from', ARGV[1], 'to', ARGV[2], 'status', 'none', 'none', now, 'accepted_by', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('LPUSH', KEYS[2], ARGV[3])
-- Only a wake-up: without it the entry is found at the next look at the list.
redis.pcall('PUBLISH', ARGV[7], 'new')
return { 'accepted', 'none' }

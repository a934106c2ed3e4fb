-- Stores an entry that a user sends and puts it into the list, in one step. A message to a user has a hash in the ledger,
-- and repeating it changes nothing; an entry to a topic has no hash.
--
-- KEYS  1 list  2 ids:a  3 ids:b  4 the bytes that the sender has stored lately  5 the hash of a message to a user
-- ARGV  1 from  2 to  3 the entry  4 who accepts it  5 milliseconds that the hash is kept  6 entries that may wait
--       7 the channel of the wake-up  8 its sender and id as the claim remembers them  9 bytes that a sender may store in
--       10 milliseconds
-- Returns the outcome, and its status or the milliseconds to wait.

-- The cost of an entry besides its own bytes: its hash, its part of history, and the statuses that its sender gets.
local OVERHEAD_BYTES = 512

local message, id = KEYS[5], ARGV[8]
if message then
  local known = redis.call('HMGET', message, 'from', 'to', 'status')
  if known[1] then
    if known[1] == ARGV[1] and known[2] == ARGV[2] then return { 'repeated', known[3] } end
    return { 'conflict', '' }
  end
end
-- The claim would drop it: the sender has used the id for something else lately.
if redis.call('SISMEMBER', KEYS[2], id) == 1 or redis.call('SISMEMBER', KEYS[3], id) == 1 then return { 'conflict', '' } end
if redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[6]) then return { 'full', '' } end
local cost = #ARGV[3] + OVERHEAD_BYTES
if tonumber(redis.call('GET', KEYS[4]) or 0) + cost > tonumber(ARGV[9]) then
  return { 'quota', tostring(redis.call('PTTL', KEYS[4])) }
end
redis.call('INCRBY', KEYS[4], cost)
if redis.call('PTTL', KEYS[4]) < 0 then redis.call('PEXPIRE', KEYS[4], ARGV[10]) end
if message then
  local time = redis.call('TIME')
  local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
  redis.call('HSET', message, 'from', ARGV[1], 'to', ARGV[2], 'status', 'none', 'none', now, 'accepted_by', ARGV[4])
  redis.call('PEXPIRE', message, ARGV[5])
end
redis.call('LPUSH', KEYS[1], ARGV[3])
-- Only a hint: without it a replica finds the entry when it next reads the list.
redis.pcall('PUBLISH', ARGV[7], 'new')
return { 'stored', 'none' }

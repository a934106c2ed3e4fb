-- In front of claim.lua and read.lua. KEYS[1] is the sequence, ARGV[1] a fresh random epoch id.
-- A data set that was lost, or that another server took over, gets a new epoch: its positions say
-- nothing about the old ones. The first position of an epoch is given to no entry, so that a reader of
-- an empty data set has a cursor, and a fresh one.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function parse(position)
  local ms, n = string.match(position, '^(%d+)%-(%d+)$')
  return tonumber(ms), tonumber(n)
end

local function write(ms, n)
  return string.format('%.0f-%.0f', ms, n)
end

-- The position after ms-n, at the server's time.
local function following(ms, n)
  if now > ms then return now, 0 end
  return ms, n + 1
end

local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
local sequence = redis.call('HMGET', KEYS[1], 'id', 'replid', 'first', 'last')
local epoch, first, last = sequence[1], sequence[3], sequence[4]
if not epoch or sequence[2] ~= replid then
  epoch, first = ARGV[1], write(following(parse(last or '0-0')))
  last = first
  redis.call('HSET', KEYS[1], 'id', epoch, 'replid', replid, 'first', first, 'last', last)
end

-- In front of the other scripts. KEYS[1] is the sequence, ARGV[1] a fresh random epoch id.
-- A data set that was lost, or that another server took over, gets a new epoch: its positions say
-- nothing about the old ones. The first position of an epoch is given to no entry, so that a reader of
-- an empty data set has a cursor, and a fresh one.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

-- Beyond this, numbers are not counted exactly.
local NUMBER_MAX = 2 ^ 53 - 1

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

-- The last position of a history, whether or not it is still held; nil where there is no stream.
local function tail_of(history)
  local info = redis.pcall('XINFO', 'STREAM', history)
  if info.err then
    if string.find(info.err, 'no such key', 1, true) or string.find(info.err, '^WRONGTYPE') then return nil end
    error(info)
  end
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end

local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
local sequence = redis.call('HMGET', KEYS[1], 'id', 'replid', 'first', 'last')
local epoch, first, last = sequence[1], sequence[3], sequence[4]
if not epoch or sequence[2] ~= replid then
  epoch, first = ARGV[1], write(following(parse(last or '0-0')))
  last = first
  redis.call('HSET', KEYS[1], 'id', epoch, 'replid', replid, 'first', first, 'last', last)
end

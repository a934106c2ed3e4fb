-- In front of the other scripts. KEYS[1] is the sequence; ARGV[1] is a fresh random epoch id, a blank, and the caller's
-- clock in milliseconds since 1970.
--
-- A data set that was lost, or that another server took over, gets a new epoch: positions of two epochs cannot be compared.
-- No entry gets the first position of an epoch, so that a reader of an empty data set has a cursor too.

-- Beyond this, Lua does not count exactly.
local NUMBER_MAX = 2 ^ 53 - 1
-- The server's clock may run this far ahead, in milliseconds, of where it was when it was last recorded, or of the caller's
-- clock. One that is ahead of both has jumped: it is held back to here, so that a wrong second leaves no positions, and
-- trims no history, of a day that has not come. Only the sign of life of each second (echo.lua) records a clock that is
-- held back, so that one that was right after all is caught up with in time.
local CLOCK_STEP, CLOCK_SKEW = 60000, 300000

local function parse(position)
  local ms, n = string.match(position, '^(%d+)%-(%d+)$')
  return tonumber(ms), tonumber(n)
end

local function write(ms, n)
  return string.format('%.0f-%.0f', ms, n)
end

local fresh_epoch, callers_clock = string.match(ARGV[1], '^(%w+) (%d+)$')
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local sequence = redis.call('HMGET', KEYS[1], 'id', 'replid', 'first', 'last', 'clock')
local latest = math.max((tonumber(sequence[5]) or now) + CLOCK_STEP, tonumber(callers_clock) + CLOCK_SKEW)
local is_held_back = now > latest
if is_held_back then now = latest end
local clock = string.format('%.0f', now)

-- The position after ms-n, at the server's time.
local function following(ms, n)
  if now > ms then return now, 0 end
  return ms, n + 1
end

-- The last position of a history, whether or not it is still held, and how many entries it holds; nil where there is no
-- stream.
local function tail_of(history)
  local info = redis.pcall('XINFO', 'STREAM', history)
  if info.err then
    if string.find(info.err, 'no such key', 1, true) or string.find(info.err, '^WRONGTYPE') then return nil end
    error(info)
  end
  local field = {}
  for i = 1, #info, 2 do field[info[i]] = info[i + 1] end
  return field['last-generated-id'], field['length']
end

-- Where the server has no replication id, or does not let us read it, we assume that its data set stays the same.
local info = redis.pcall('INFO', 'replication')
local replid = type(info) == 'string' and string.match(info, 'master_replid:(%w+)') or 'unknown'
local epoch, first, last = sequence[1], sequence[3], sequence[4]
if not epoch or sequence[2] ~= replid then
  epoch, first = fresh_epoch, write(following(parse(last or '0-0')))
  last = first
  redis.call('HSET', KEYS[1], 'id', epoch, 'replid', replid, 'first', first, 'last', last, 'clock', clock)
end

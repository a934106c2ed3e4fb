-- After sequence.lua: how much history is kept. `retention` is a text like
-- `everyone=86400000/100000/67108864 topic=…`: for each kind of audience milliseconds, entries and bytes of memory.

local function read_retention(text)
  local retention = {}
  for kind, age, entries, bytes in string.gmatch(text, '(%a+)=(%d+)/(%d+)/(%d+)') do
    retention[kind] = { age = tonumber(age), entries = tonumber(entries), bytes = tonumber(bytes) }
  end
  return retention
end

-- Memory is measured once in so many entries: the answer costs as much as an append.
local MEASURE_EVERY = 16

-- Trims a history to its bytes: as many of the newest entries stay as fit by their mean size. This is repeated, since sizes
-- differ. The newest entry always stays.
local function fit(history, bytes)
  local removed = 0
  while true do
    local used, entries = redis.call('MEMORY', 'USAGE', history), redis.call('XLEN', history)
    if not used or used <= bytes or entries <= 1 then return removed end
    local most = math.max(1, math.floor(entries * bytes / used * 0.9))
    removed = removed + redis.call('XTRIM', history, 'MAXLEN', string.format('%d', math.min(most, entries - 1)))
  end
end

-- After append.lua: how far a message between people has come. Its hash is made when it is accepted; whoever
-- pushes to the list by other means has none, and no status.

-- RFC 3339 in UTC with milliseconds. Days to a date by Howard Hinnant's `civil_from_days`
-- (https://howardhinnant.github.io/date_algorithms.html), in the eras since 1970 only.
local function timestamp(ms_since_1970)
  local seconds = math.floor(ms_since_1970 / 1000)
  local days, in_day = math.floor(seconds / 86400), seconds % 86400
  local shifted = days + 719468
  local era = math.floor(shifted / 146097)
  local doe = shifted % 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day, month = doy - math.floor((153 * mp + 2) / 5) + 1, mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day,
    math.floor(in_day / 3600), math.floor(in_day / 60) % 60, in_day % 60, ms_since_1970 % 1000)
end

local RANK = { none = 0, sent = 1, delivered = 2, read = 3 }

-- Raises the status of a message, and says so in its sender's history. A message that is there already stays
-- as it is. Nothing in here may end the script: the step that it belongs to has written already.
local function raise(message, from, id, before, status)
  if not RANK[before] or RANK[status] <= RANK[before] then return false end
  local at = write(now, 0):match('^%d+')
  -- Whoever reads has it: there is no time at which it was read and not delivered.
  if status == 'read' and RANK[before] < RANK.delivered then try('HSET', message, 'delivered', at) end
  try('HSET', message, 'status', status, status, at)
  local fields = cjson.encode({ id = id, status = status, at = timestamp(now) })
  local ok, position = pcall(append, 'status', 'user:' .. from, fields)
  if not ok or not position then faults[#faults + 1] = 'the status of a message is missing from the history of its sender' end
  return true
end

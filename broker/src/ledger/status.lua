-- After append.lua: how far a message between people has come. Its hash is made when it is accepted; whoever
-- pushes to the list by other means has none, and no status.

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

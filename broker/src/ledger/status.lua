-- After append.lua: the status of a message between users. send.lua creates its hash; an entry that was pushed to the list
-- by other means has no hash, and no status.

local RANK = { none = 0, sent = 1, delivered = 2, read = 3 }

-- Raises the status of a message, and appends the new status to its sender's history. A message that has come as far already
-- stays as it is. No error in here may end the script, which has written other keys before.
local function raise(message, from, id, before, status)
  if not RANK[before] or RANK[status] <= RANK[before] then return false end
  local at = write(now, 0):match('^%d+')
  -- A message that is read is delivered too, at the same time if it was not before.
  if status == 'read' and RANK[before] < RANK.delivered then try('HSET', message, 'delivered', at) end
  try('HSET', message, 'status', status, status, at)
  local fields = cjson.encode({ id = id, status = status, at = timestamp(now) })
  local ok, position = pcall(append, 'status', 'user:' .. from, fields)
  if not ok or not position then faults[#faults + 1] = 'the status of a message is missing from the history of its sender' end
  return true
end

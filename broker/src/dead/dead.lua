-- Entries that cannot be delivered, with the reason and their own bytes: `dead` has those that producers pushed,
-- `dead:people` the messages of users, `dead:outbox` those that the application did not accept. Needs `prefix`, and `fit` of
-- keep.lua.

local DEAD_ENTRIES, DEAD_BYTES = 1000, 8388608
-- An entry that is larger than any that a claim takes is cut here.
local DEAD_RAW_BYTES = 65536

-- `message` is the key of a message in the ledger, whose trace then shows why it was not delivered.
local function bury(list, raw, reason, detail, by, message)
  local dead = prefix .. 'dead' .. (list == 'producers' and '' or ':' .. list)
  redis.call('XADD', dead, 'MAXLEN', DEAD_ENTRIES, '*', 'reason', reason, 'detail', detail, 'size', #raw,
    'claimed_by', by, 'raw', string.sub(raw, 1, DEAD_RAW_BYTES))
  -- A list of small entries never reaches the bound, so it is not measured for them.
  if #raw > 4096 then pcall(fit, dead, DEAD_BYTES) end
  if message then redis.pcall('HSET', message, 'buried', reason .. ': ' .. detail) end
end

-- What cannot be delivered, with the reason and its own bytes: `dead` has what producers pushed, `dead:people` the
-- messages of users, `dead:outbox` what the application did not take. Needs `prefix`, and `fit` of keep.lua.

local DEAD_ENTRIES, DEAD_BYTES = 1000, 8388608
-- An entry that is larger than any that a claim takes is cut here.
local DEAD_RAW_BYTES = 65536

-- `message` is the key of a message in the ledger, whose trace then tells why it stays.
local function bury(list, raw, reason, detail, by, message)
  local dead = prefix .. 'dead' .. (list == 'producers' and '' or ':' .. list)
  redis.call('XADD', dead, 'MAXLEN', DEAD_ENTRIES, '*', 'reason', reason, 'detail', detail, 'size', #raw,
    'claimed_by', by, 'raw', string.sub(raw, 1, DEAD_RAW_BYTES))
  -- A list of small entries never comes near; the measure is for those that are large.
  if #raw > 4096 then pcall(fit, dead, DEAD_BYTES) end
  if message then redis.pcall('HSET', message, 'buried', reason .. ': ' .. detail) end
end

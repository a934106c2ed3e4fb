-- Trims histories without a claim, which a full server refuses: it takes XTRIM, since that needs no memory. Each call
-- looks at some keys; the next one goes on from the cursor that it returns. After sequence.lua and keep.lua.
--
-- KEYS  1 sequence
-- ARGV  2 prefix of the keys  3 retention  4 cursor  5 keys to look at
--       6 the share of its entries that a history keeps, above what its age and bytes allow, from 0 to 1

local retention, share = read_retention(ARGV[3]), tonumber(ARGV[6])
local histories = ARGV[2] .. 'history:'
local found = redis.call('SCAN', ARGV[4], 'MATCH', histories .. '*', 'COUNT', ARGV[5])
local trimmed = 0
for _, history in ipairs(found[2]) do
  local keep = retention[string.match(string.sub(history, #histories + 1), '^%a+')]
  if keep then
    local function trim(...)
      local removed = redis.pcall('XTRIM', history, ...)
      if type(removed) == 'number' then trimmed = trimmed + removed end
    end
    trim('MINID', '~', write(now - keep.age, 0))
    local ok, removed = pcall(fit, history, keep.bytes)
    if ok then trimmed = trimmed + removed end
    local entries = share < 1 and redis.pcall('XLEN', history)
    if type(entries) == 'number' then trim('MAXLEN', string.format('%d', math.ceil(entries * share))) end
  end
end
return { found[1], trimmed }

-- Trims histories without a claim, which a full server refuses: it uses XTRIM, which needs no memory. Each call reads some
-- keys; the next call continues at the cursor that it returns. After sequence.lua and keep.lua.
--
-- KEYS  1 sequence
-- ARGV  2 prefix of the keys  3 retention  4 cursor  5 keys to read
--       6 the share of its entries that a history keeps, above what its age and bytes allow, from 0 to 1
--       7 milliseconds after the last call before which no other begins
--
-- The moment of the last call is stored as the time to live of a key: a full server stores no new value, but it changes when
-- an existing key expires. Only a server that was full before the first call lacks this key, and then every call may begin.

local retention, share = read_retention(ARGV[3]), tonumber(ARGV[6])
local histories = ARGV[2] .. 'history:'
local passed, KEEP_MS = ARGV[2] .. 'trimmed', 31 * 86400000
if ARGV[4] == '0' then
  local since = KEEP_MS - redis.call('PTTL', passed)
  if since >= 0 and since < tonumber(ARGV[7]) then return { '0', -1 } end
end
if redis.call('PEXPIRE', passed, KEEP_MS) == 0 then redis.pcall('SET', passed, '', 'PX', KEEP_MS) end

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

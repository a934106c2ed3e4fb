-- Reads several histories and the end of the sequence in one atomic step.
--
-- KEYS  1 sequence  2… histories
-- ARGV  1 fresh epoch id  2 the position after which to begin  3 entries and 4 bytes of one history

local max_entries, max_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local parts = {}
for i = 2, #KEYS do
  local tail = false
  local info = redis.pcall('XINFO', 'STREAM', KEYS[i])
  for j = 1, #info, 2 do
    if info[j] == 'last-generated-id' then tail = info[j + 1] end
  end
  local entries, bytes, full = {}, 0, 0
  if tail then
    local found = redis.call('XRANGE', KEYS[i], '(' .. ARGV[2], '+', 'COUNT', max_entries)
    if #found == max_entries then full = 1 end
    for _, entry in ipairs(found) do
      -- Fields: claimed_by, prev, entry. The first one always goes along, so that each read gets on.
      bytes = bytes + #entry[2][6]
      if bytes > max_bytes and #entries > 0 then
        full = 1
        break
      end
      for _, part in ipairs({ entry[1], entry[2][2], entry[2][4], entry[2][6] }) do entries[#entries + 1] = part end
    end
  end
  parts[#parts + 1] = { full, tail or '', entries }
end
return { epoch, first, last, string.format('%.0f', now), parts }

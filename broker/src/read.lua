-- Reads several histories as one, in the order of the sequence, and the end of it, in one atomic step.
--
-- KEYS  1 sequence  2… histories
-- ARGV  1 fresh epoch id  2 the position after which to begin  3 entries and 4 bytes of the answer; one entry always fits

local max_entries, max_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
-- Entries that are copied from a history in one step: few, since each may be large.
local STEP_MAX = 8

-- An entry of a stream by the names of its fields. What lacks one is not ours, and is stepped over.
local function entry_of(row)
  local entry = { kind = 'notification', position = row[1] }
  for i = 1, #row[2], 2 do entry[row[2][i]] = row[2][i + 1] end
  entry.ms, entry.n = parse(row[1])
  if entry.claimed_by and entry.prev and entry.entry then return entry end
end

-- The next entry of a part; nil at its end.
local function head(part)
  while part.at > #part.ahead and not part.ended do
    local rows = redis.pcall('XRANGE', part.history, '(' .. part.after, '+', 'COUNT', part.step)
    if rows.err then
      if not string.find(rows.err, '^WRONGTYPE') then error(rows) end
      rows = {}
    end
    part.ahead, part.at, part.ended = {}, 1, #rows < part.step
    for _, row in ipairs(rows) do
      part.ahead[#part.ahead + 1] = entry_of(row)
      part.after = row[1]
    end
    part.step = math.min(part.step * 2, STEP_MAX)
  end
  return part.ahead[part.at]
end

local parts, open = {}, {}
for i = 2, #KEYS do
  local part = { history = KEYS[i], after = ARGV[2], step = 1, ahead = {}, at = 1, entries = {} }
  local entry = head(part)
  if entry then
    part.prev = entry.prev
    open[#open + 1] = part
  else
    part.tail = tail_of(KEYS[i])
  end
  parts[i - 1] = part
end

-- Where the answer ends, if that is not the end of everything.
local reached
local count, bytes, given = 0, 0, ARGV[2]
while #open > 0 do
  local at, oldest
  for i, part in ipairs(open) do
    local entry = head(part)
    if not oldest or entry.ms < oldest.ms or (entry.ms == oldest.ms and entry.n < oldest.n) then at, oldest = i, entry end
  end
  if count == max_entries or (count > 0 and bytes + #oldest.entry > max_bytes) then
    reached = given
    break
  end
  local part = open[at]
  for _, field in ipairs({ oldest.position, oldest.claimed_by, oldest.kind, oldest.prev, oldest.entry }) do
    part.entries[#part.entries + 1] = field
  end
  count, bytes, given = count + 1, bytes + #oldest.entry, oldest.position
  part.at = part.at + 1
  if not head(part) then table.remove(open, at) end
end

local answer = {}
for i, part in ipairs(parts) do answer[i] = { part.prev or '', part.tail or '', part.entries } end
return { epoch, first, last, string.format('%.0f', now), reached or '', answer }

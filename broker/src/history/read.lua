-- Reads several histories as one, in the order of the sequence, and the end of it, in one atomic step.
--
-- KEYS  1 sequence  2… histories
-- ARGV  1 fresh epoch id and clock  2 'after' or 'before'  3 the position after which, or before which, to begin
--       4 entries and 5 bytes of the answer; one entry always fits

local forward, begin = ARGV[2] == 'after', ARGV[3]
local max_entries, max_bytes = tonumber(ARGV[4]), tonumber(ARGV[5])
-- Entries that are read from a history in one step: few, since each may be large.
local STEP_MAX = 8
-- The format of history that this script knows. Entries of the release before it name none.
local FORMAT = '1'

-- An entry of a stream by the names of its fields; nil where it lacks one or cannot be read, so that it is skipped.
local function entry_of(row)
  local entry = { kind = 'notification', format = FORMAT, position = row[1] }
  for i = 1, #row[2], 2 do entry[row[2][i]] = row[2][i + 1] end
  entry.ms, entry.n = parse(row[1])
  if entry.format ~= FORMAT then entry.kind = 'unknown' end
  if entry.claimed_by and entry.entry and parse(entry.prev or '') then return entry end
end

-- The next entry of a part; nil at its end.
local function head(part)
  while part.at > #part.ahead and not part.ended do
    local rows
    if forward then
      rows = redis.pcall('XRANGE', part.history, '(' .. part.beyond, '+', 'COUNT', part.step)
    else
      rows = redis.pcall('XREVRANGE', part.history, '(' .. part.beyond, '-', 'COUNT', part.step)
    end
    if rows.err then
      if not string.find(rows.err, '^WRONGTYPE') then error(rows) end
      rows = {}
    end
    part.ahead, part.at, part.ended = {}, 1, #rows < part.step
    for _, row in ipairs(rows) do
      local entry = entry_of(row)
      if not entry then part.unreadable = part.unreadable + 1 end
      part.ahead[#part.ahead + 1] = entry
      part.beyond = row[1]
    end
    part.step = math.min(part.step * 2, STEP_MAX)
  end
  return part.ahead[part.at]
end

local function is_next(a, b)
  if not forward then a, b = b, a end
  return a.ms < b.ms or (a.ms == b.ms and a.n < b.n)
end

local parts, open = {}, {}
for i = 2, #KEYS do
  local part = { history = KEYS[i], beyond = begin, step = 1, ahead = {}, at = 1, entries = {}, unreadable = 0 }
  local entry = head(part)
  if entry then
    part.prev = entry.prev
    open[#open + 1] = part
  elseif forward then
    part.tail = tail_of(KEYS[i])
  end
  parts[i - 1] = part
end

-- Where the answer ends, if that is not the end of everything.
local reached
local count, bytes, given = 0, 0, begin
while #open > 0 do
  local at, chosen
  for i, part in ipairs(open) do
    local entry = head(part)
    if not chosen or is_next(entry, chosen) then at, chosen = i, entry end
  end
  if count == max_entries or (count > 0 and bytes + #chosen.entry > max_bytes) then
    reached = given
    break
  end
  local part = open[at]
  for _, field in ipairs({ chosen.position, chosen.claimed_by, chosen.kind, chosen.prev, chosen.entry }) do
    part.entries[#part.entries + 1] = field
  end
  count, bytes, given = count + 1, bytes + #chosen.entry, chosen.position
  part.at = part.at + 1
  if not head(part) then table.remove(open, at) end
end

local answer, unreadable = {}, 0
for i, part in ipairs(parts) do
  answer[i] = { part.prev or '', part.tail or '', part.entries }
  unreadable = unreadable + part.unreadable
end
return { epoch, first, last, clock, reached or '', unreadable, answer }

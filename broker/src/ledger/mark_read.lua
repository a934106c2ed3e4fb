-- Notes up to where a user has read, and tells all their devices. After append.lua; it never goes back.
--
-- KEYS  1 sequence  2 the user's read position
-- ARGV  8 the user  9 the epoch of the cursor and 10 its position

-- A cursor of another data set says nothing about this one.
if ARGV[9] ~= epoch then return { 0, faults } end
local function later(a_ms, a_n, b_ms, b_n) return a_ms > b_ms or (a_ms == b_ms and a_n > b_n) end
local to_ms, to_n = parse(ARGV[10])
-- Nothing beyond the end can have been read.
local end_ms, end_n = parse(last)
if later(to_ms, to_n, end_ms, end_n) then to_ms, to_n = end_ms, end_n end
local known_epoch, known = string.match(redis.call('GET', KEYS[2]) or '', '^(%w+)%.(%d+%-%d+)$')
if known_epoch == epoch then
  local known_ms, known_n = parse(known)
  if not later(to_ms, to_n, known_ms, known_n) then return { 0, faults } end
end
local cursor = epoch .. '.' .. write(to_ms, to_n)
redis.call('SET', KEYS[2], cursor, 'PX', ARGV[7])
append('read', 'user:' .. ARGV[8], cjson.encode({ read = cursor }))
finish()
return { 1, faults }

-- Records up to where a user has read, and notifies all their devices. It never goes back. After append.lua and
-- position.lua.
--
-- KEYS  1 sequence  2 the user's read position
-- ARGV  7 the user  8 the epoch of the cursor and 9 its position

local to_ms, to_n = here(ARGV[8], ARGV[9])
-- Nothing beyond the end can have been read.
local end_ms, end_n = parse(last)
if later(to_ms, to_n, end_ms, end_n) then to_ms, to_n = end_ms, end_n end
local known_ms, known_n = read_position(KEYS[2])
if known_ms and not later(to_ms, to_n, known_ms, known_n) then return { 0, faults } end
local cursor = epoch .. '.' .. write(to_ms, to_n)
redis.call('SET', KEYS[2], cursor, 'PX', retention.user.age)
append('read', 'user:' .. ARGV[7], cjson.encode({ read = cursor }))
finish()
return { 1, faults }

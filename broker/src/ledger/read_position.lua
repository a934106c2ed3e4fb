-- Up to where a user has read, as a cursor of the present epoch; empty where none was recorded. After position.lua.
--
-- KEYS  1 sequence  2 the user's read position

local ms, n = read_position(KEYS[2])
return ms and epoch .. '.' .. write(ms, n) or ''

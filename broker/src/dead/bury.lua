-- Writes an entry to the dead list that was claimed and that the strict reading refuses, and forgets its id, so that a
-- corrected one can be pushed under it. After keep.lua and dead.lua.
--
-- KEYS  1 sequence  2 ids:a  3 ids:b
-- ARGV  1 fresh epoch id and clock  2 prefix of the keys  3 the entry  4 reason  5 detail  6 who claimed it
--       7 its sender and id as they are remembered; empty where it has no id

local id = ARGV[7]
local message = id ~= '' and prefix .. 'message:' .. id
local people = message and redis.call('EXISTS', message) == 1
bury(people and 'people' or 'producers', ARGV[3], ARGV[4], ARGV[5], ARGV[6], people and message)
if id ~= '' then
  redis.call('SREM', KEYS[2], id)
  redis.call('SREM', KEYS[3], id)
end
return 1

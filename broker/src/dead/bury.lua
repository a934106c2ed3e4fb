-- Writes a claimed entry to the dead list, since the strict reading refuses it, and removes its id from those remembered, so
-- that a corrected entry can be pushed under the same id. After keep.lua and dead.lua.
--
-- KEYS  1 sequence  2 ids:a  3 ids:b
-- ARGV  1 fresh epoch id and clock  2 prefix of the keys  3 the entry  4 reason  5 detail  6 the replica that claimed it
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

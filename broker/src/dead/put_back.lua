-- Puts an entry of a dead list back into the list, to be claimed next. Returns whether it was there.
--
-- KEYS  1 the dead list  2 the list
-- ARGV  1 id of the entry  2 wake-up channel

local entry = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not entry then return 0 end
local field = {}
for i = 1, #entry[2], 2 do field[entry[2][i]] = entry[2][i + 1] end
if #field.raw ~= tonumber(field.size) then return { err = 'CUT only a part of the entry was kept' } end
redis.call('RPUSH', KEYS[2], field.raw)
redis.call('XDEL', KEYS[1], ARGV[1])
redis.pcall('PUBLISH', ARGV[2], 'new')
return 1

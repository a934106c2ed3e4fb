-- One sign of life through the whole path of a replica. It is published on a channel of the listener, which learns from it
-- that it is connected to this server, how far the sequence has come, and whether the server takes writes. Replicas in
-- different modes do not run together. After sequence.lua.
--
-- KEYS  1 sequence  2 the mode of the replicas that run now
-- ARGV  2 channel  3 mode  4 milliseconds that the mode is kept without another call  5 number of this sign of life

local other = redis.call('GET', KEYS[2])
if other and other ~= ARGV[3] then return { epoch, last, '', other } end
local written = redis.pcall('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
if not written.err then written = redis.pcall('HSET', KEYS[1], 'clock', clock) end
redis.call('PUBLISH', ARGV[2], ARGV[5] .. ' ' .. epoch .. '.' .. last)
return { epoch, last, type(written) == 'table' and written.err or '', '' }

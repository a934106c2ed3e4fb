-- Stores a revocation, and publishes it to all replicas.
--
-- KEYS  1 revocations
-- ARGV  1 what is revoked  2 until when, in seconds: the replica's clock  3 seconds that it is kept  4 how many are kept
--       5 the control channel  6 seconds that two clocks may differ
--
-- It applies until now by the later of both clocks, so that a replica whose clock is behind revokes all the tokens; but at
-- most 5 minutes by the server's clock, so that a wrong clock does not revoke tokens of days to come.

local now, until_s = tonumber(redis.call('TIME')[1]), tonumber(ARGV[2])
-- By the earlier clock, so that neither drops a revocation before its time.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', math.min(now, until_s) - tonumber(ARGV[3]))
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[4]) then return 'full' end
local till = string.format('%.0f', math.min(math.max(until_s, now), until_s + tonumber(ARGV[6])))
redis.call('ZADD', KEYS[1], 'GT', till, ARGV[1])
redis.call('PUBLISH', ARGV[5], till .. ' ' .. ARGV[1])
return 'done'

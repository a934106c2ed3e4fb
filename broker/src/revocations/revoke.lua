-- Stores that tokens are revoked, and tells all replicas.
--
-- KEYS  1 revocations
-- ARGV  1 what is revoked  2 until when, in seconds: the replica's clock  3 seconds that it is kept  4 how many are kept
--       5 the control channel  6 seconds that two clocks may differ
--
-- It counts until now by both clocks, so that a replica whose clock is behind leaves out none of the tokens that it is
-- for; but by the server's clock at most 5 minutes more, so that a wrong one does not refuse tokens of days to come.

local now, until_s = tonumber(redis.call('TIME')[1]), tonumber(ARGV[2])
-- By the earlier clock, so that neither drops a revocation before its time.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', math.min(now, until_s) - tonumber(ARGV[3]))
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[4]) then return 'full' end
local till = string.format('%.0f', math.min(math.max(until_s, now), until_s + tonumber(ARGV[6])))
redis.call('ZADD', KEYS[1], 'GT', till, ARGV[1])
redis.call('PUBLISH', ARGV[5], till .. ' ' .. ARGV[1])
return 'done'

-- Replaces the key of sessions, unless another replica replaced it before. Returns the key that is stored then.
--
-- KEYS  1 the key of sessions
-- ARGV  1 the key that is replaced  2 the new one

if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end
return redis.call('GET', KEYS[1]) or ''

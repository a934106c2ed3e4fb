-- Replaces a user's state, and announces the change.
--
-- KEYS  1 the state
-- ARGV  1 the channel on which a change is announced, and then fields and values. One by one, since Lua passes on a few
--       thousand arguments at most. (Not MULTI: redis-rs 1.8 panics when a command inside is refused.)

redis.call('UNLINK', KEYS[1])
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('PUBLISH', ARGV[1], 'new')
return 1

-- Who is online. After sequence.lua. One call is one heartbeat of one run of a replica: it renews the run's lease, records
-- the users whose number of connections there has changed, removes the users of runs whose lease has expired, and announces
-- the users who have been away for long enough. Subscribers of `presence:<user>` then read the presence again; it has no
-- history.
--
-- `presence:<user>` is a hash: for each run the user's connections there, and `since`, from the first of them
-- until the leave is announced. `users:<run>` is a set, `lease:<run>` expires, and `runs` names them all.
-- `leaving` has the users without a connection, each by the moment when the last one went.
--
-- KEYS  1 sequence
-- ARGV  2 prefix of the keys  3 prefix of the channels  4 run  5 milliseconds of its lease, 0 at its end
--       6 milliseconds after which a leave is announced  7 users that one heartbeat removes, and announces, at most
--       8 1 where the replica has had another run before this one; then for each user who changed: the user, and the
--       connections that are left in this run

local prefix, channels = ARGV[2], ARGV[3]
local run, lease, grace, most, returns = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8] == '1'
local runs, leaving, calm = prefix .. 'runs', prefix .. 'leaving', prefix .. 'calm'

local function lease_of(any) return prefix .. 'lease:' .. any end
local function users_of(any) return prefix .. 'users:' .. any end
local function presence_of(user) return prefix .. 'presence:' .. user end

local function announce(user)
  -- Only a hint: a replica that misses it reads the presence again when it is connected again.
  redis.pcall('PUBLISH', channels .. 'presence:' .. user, 'new')
end

local function enter(user, connections)
  redis.call('HSET', presence_of(user), run, connections)
  redis.call('SADD', users_of(run), user)
  redis.call('ZREM', leaving, user)
  if redis.call('HSETNX', presence_of(user), 'since', clock) == 1 then announce(user) end
end

-- A user who was there, and now has nothing but `since`, is leaving.
local function remove(user, of, at)
  if redis.call('HDEL', presence_of(user), of) == 1 and redis.call('HLEN', presence_of(user)) == 1 then
    redis.call('ZADD', leaving, at, user)
  end
end

local held = false
if lease > 0 then
  local was_known = redis.call('SISMEMBER', runs, run) == 1
  -- A lease that exists is renewed without memory, so that a full server does not make all users look offline.
  held = redis.call('PEXPIRE', lease_of(run), lease) == 1
  if not held then redis.call('SET', lease_of(run), 1, 'PX', lease) end
  if not was_known then redis.call('SADD', runs, run) end
  -- A run that has lost its lease may be one of many that could not reach Redis. They get time to report their users before
  -- these are removed. The first run of a replica is not a sign of that.
  if not held and (was_known or returns) and grace > 0 then redis.call('SET', calm, 1, 'PX', grace) end
else
  redis.call('DEL', lease_of(run))
end

for i = 9, #ARGV, 2 do
  local user, connections = ARGV[i], tonumber(ARGV[i + 1])
  if connections > 0 then
    enter(user, connections)
  else
    redis.call('SREM', users_of(run), user)
    remove(user, run, now)
  end
end

-- Milliseconds until users have to be removed or announced, even if no user comes or leaves until then; -1 for never.
local soonest = -1
local function due_in(milliseconds)
  milliseconds = math.max(1, milliseconds)
  if soonest < 0 or milliseconds < soonest then soonest = milliseconds end
end

local left = most
local calm_for = redis.call('PTTL', calm)
if calm_for >= 0 then
  due_in(calm_for)
else
  for _, other in ipairs(redis.call('SMEMBERS', runs)) do
    local held_for = redis.call('PTTL', lease_of(other))
    if held_for >= 0 then
      if other ~= run then due_in(held_for) end
    else
      local gone = left > 0 and redis.call('SPOP', users_of(other), left) or {}
      -- They left when the run fell silent, which is longer ago than `grace`.
      for _, user in ipairs(gone) do remove(user, other, now - grace) end
      left = left - #gone
      if redis.call('EXISTS', users_of(other)) == 0 then redis.call('SREM', runs, other) end
    end
  end
end

local due = redis.call('ZRANGEBYSCORE', leaving, '-inf', now - grace, 'LIMIT', 0, most)
for _, user in ipairs(due) do
  redis.call('ZREM', leaving, user)
  redis.call('DEL', presence_of(user))
  announce(user)
end

local first_leave = redis.call('ZRANGE', leaving, 0, 0, 'WITHSCORES')[2]
if first_leave then due_in(tonumber(first_leave) + grace - now) end
return { epoch, held and 1 or 0, left <= 0 and 1 or 0, soonest }

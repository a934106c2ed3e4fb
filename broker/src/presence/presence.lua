-- Who is online. After append.lua. One call is one beat of one run of a replica: it renews the run's lease,
-- notes whose number of connections there has changed, takes out the users of runs whose lease is over, and
-- reports who has been away for long enough.
--
-- `presence:<user>` is a hash: for each run the user's connections there, and `since`, from the first of them
-- until the leave is reported. `users:<run>` is a set, `lease:<run>` expires, and `runs` names them all.
-- `leaving` has the users without a connection, each by the moment when the last one went.
--
-- ARGV  8 run  9 milliseconds of its lease, 0 at its end  10 milliseconds after which a leave is reported
--       11 users that one beat takes out, and reports, at most; then for each user who changed: the user, and
--       the connections that are left in this run

local run, lease, grace, most = ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local runs, leaving, calm = prefix .. 'runs', prefix .. 'leaving', prefix .. 'calm'

local function lease_of(any) return prefix .. 'lease:' .. any end
local function users_of(any) return prefix .. 'users:' .. any end
local function presence_of(user) return prefix .. 'presence:' .. user end

local function report(user, online, at)
  local raw = table.concat({ '{"user":', cjson.encode(user), ',"online":', tostring(online), ',"at":"', timestamp(at), '"}' })
  -- What is said of the user is written already, and stays true.
  local ok, position = pcall(append, 'presence', 'topic:presence:' .. user, raw)
  if not ok or not position then faults[#faults + 1] = 'a coming or going is missing from the history of its topic' end
end

local function enter(user, connections)
  redis.call('HSET', presence_of(user), run, connections)
  redis.call('SADD', users_of(run), user)
  redis.call('ZREM', leaving, user)
  if redis.call('HSETNX', presence_of(user), 'since', now) == 1 then report(user, true, now) end
end

-- A user who was there, and now has nothing but `since`, is leaving.
local function take_out(user, of, at)
  if redis.call('HDEL', presence_of(user), of) == 1 and redis.call('HLEN', presence_of(user)) == 1 then
    redis.call('ZADD', leaving, at, user)
  end
end

local known = false
if lease > 0 then
  known = redis.call('SET', lease_of(run), 1, 'PX', lease, 'GET') and true
  redis.call('SADD', runs, run)
  -- A run whose lease was gone may be one of many that could not reach Redis. They have time to say who is
  -- with them before anybody takes their users out.
  if not known and grace > 0 then redis.call('SET', calm, 1, 'PX', grace) end
else
  redis.call('DEL', lease_of(run))
end

for i = 12, #ARGV, 2 do
  local user, connections = ARGV[i], tonumber(ARGV[i + 1])
  if connections > 0 then
    enter(user, connections)
  else
    redis.call('SREM', users_of(run), user)
    take_out(user, run, now)
  end
end

-- When there is something to do without anybody's coming or going, in milliseconds from now.
local soonest = -1
local function look_in(milliseconds)
  milliseconds = math.max(1, milliseconds)
  if soonest < 0 or milliseconds < soonest then soonest = milliseconds end
end

local left = most
local calm_for = redis.call('PTTL', calm)
if calm_for >= 0 then
  look_in(calm_for)
else
  for _, other in ipairs(redis.call('SMEMBERS', runs)) do
    local held_for = redis.call('PTTL', lease_of(other))
    if held_for >= 0 then
      if other ~= run then look_in(held_for) end
    else
      local gone = left > 0 and redis.call('SPOP', users_of(other), left) or {}
      -- They went when the run fell silent, which is longer ago than the wait for a leave.
      for _, user in ipairs(gone) do take_out(user, other, now - grace) end
      left = left - #gone
      if redis.call('EXISTS', users_of(other)) == 0 then redis.call('SREM', runs, other) end
    end
  end
end

local due = redis.call('ZRANGEBYSCORE', leaving, '-inf', now - grace, 'WITHSCORES', 'LIMIT', 0, most)
for i = 1, #due, 2 do
  redis.call('ZREM', leaving, due[i])
  redis.call('DEL', presence_of(due[i]))
  report(due[i], false, tonumber(due[i + 1]))
end
if next(tails) then finish() end

local first_leave = redis.call('ZRANGE', leaving, 0, 0, 'WITHSCORES')[2]
if first_leave then look_in(tonumber(first_leave) + grace - now) end
return { epoch, known and 1 or 0, left <= 0 and 1 or 0, soonest, faults }

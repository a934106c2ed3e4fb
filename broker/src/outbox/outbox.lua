-- Messages that must leave for the application behind the service. Each belongs to a line, which is a session
-- or a user; a line's messages leave in their order, one at a time, and lines do not wait for each other.
--
-- The outbox is one sorted set of lines, each by the moment at which its first message is due: now, after the
-- pause of a failed attempt, or, while a replica tries, when its lease is over. So one replica has a line at a
-- time, and another takes it when that one falls silent. Moments are in microseconds.
--
-- Beside it are hashes: messages, attempts, the millisecond since when a message waits, and attempts in a row whose
-- replica fell silent, each by id; and by line the attempts in a row without success, so that a line pauses as one.
--
-- A user may begin any number of lines, so the messages that wait are counted by sender too: the ids of each user's messages
-- are a set, and those of all senders who are not signed in are another. A hash has the name of the set by id.
--
-- Comes after keep.lua and dead.lua, which need `prefix`.
--
-- KEYS  1 the outbox  2 messages  3 attempts  4 the dead list  5 the list of notifications
-- ARGV  1 verb, and then
--       add       2 line  3 id  4 message  5 messages in the outbox  6 messages in a line  7 the name of the
--                 sender's set  8 messages in that set
--       take      2 lines  3 milliseconds of the lease  4 milliseconds of the longest pause  5 as in sequence.lua
--       done      2 line  3 id  4 attempt
--       postpone  2 line  3 id  4 attempt  5 milliseconds
--       give_up   2 line  3 id  4 attempt  5 replica  6 detail  7 '1' when the application answered  8 the notification to
--                 the sender, as an entry  9 wake-up channel

local outbox, messages, attempts, list = KEYS[1], KEYS[2], KEYS[3], KEYS[5]
local since, silent, failures, senders = outbox .. ':since', outbox .. ':silent', outbox .. ':failures', outbox .. ':senders'
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local function after(milliseconds)
  return now + tonumber(milliseconds) * 1000
end

-- The list of a line, or the set of a sender.
local function key(name)
  return outbox .. ':' .. name
end

-- An id whose sender is not stored is of an earlier release, which knew one set.
local ANONYMOUS = 'anonymous'
-- Ids of a full set that are checked.
local LOOKS = 64

-- Whether as many messages of a sender wait as allowed. Ids that a replica of an earlier release left in the set are removed
-- first.
local function is_full(sender, most)
  if redis.call('SCARD', key(sender)) < most then return false end
  for _, id in ipairs(redis.call('SRANDMEMBER', key(sender), LOOKS)) do
    if redis.call('HEXISTS', messages, id) == 0 then redis.call('SREM', key(sender), id) end
  end
  return redis.call('SCARD', key(sender)) >= most
end

-- Removes the first message of a line; the next one is due at once.
local function advance(line, id)
  redis.call('LPOP', key(line))
  redis.call('SREM', key(redis.call('HGET', senders, id) or ANONYMOUS), id)
  for _, of_ids in ipairs({ messages, attempts, since, silent, senders }) do redis.call('HDEL', of_ids, id) end
  if redis.call('EXISTS', key(line)) == 1 then
    redis.call('ZADD', outbox, now, line)
  else
    redis.call('ZREM', outbox, line)
    redis.call('HDEL', failures, line)
  end
end

-- Whether an attempt is the present one at the first message of its line.
local function counts(line, id, attempt)
  return redis.call('LINDEX', key(line), 0) == id and redis.call('HGET', attempts, id) == attempt
end

-- How long a message has waited, in milliseconds. The server's clock or the caller's may be wrong for a moment: the earlier
-- of both counts, and a beginning that is in the future was written in a wrong second.
local function waited(id, callers_clock)
  local now_ms = math.floor(now / 1000)
  local from = tonumber(redis.call('HGET', since, id) or '')
  if not from or from > now_ms then
    redis.call('HSET', since, id, now_ms)
    return 0
  end
  return math.max(0, math.min(now_ms, callers_clock) - from)
end

local verbs = {}

function verbs.add()
  local line, id, sender = ARGV[2], ARGV[3], ARGV[7]
  if redis.call('HEXISTS', messages, id) == 1 then return 'repeated' end
  if redis.call('HLEN', messages) >= tonumber(ARGV[5]) then return 'full' end
  if is_full(sender, tonumber(ARGV[8])) then return 'sender_full' end
  if redis.call('LLEN', key(line)) >= tonumber(ARGV[6]) then return 'line_full' end
  redis.call('HSET', messages, id, ARGV[4])
  redis.call('HSET', since, id, math.floor(now / 1000))
  redis.call('SADD', key(sender), id)
  if sender ~= ANONYMOUS then redis.call('HSET', senders, id, sender) end
  redis.call('RPUSH', key(line), id)
  redis.call('ZADD', outbox, 'NX', now, line)
  return 'added'
end

-- The first messages of lines that are due, each as line, id, attempt, attempts of its line in a row without success,
-- attempts in a row whose replica fell silent, milliseconds that it has waited, and itself.
function verbs.take()
  local most, lease, callers_clock = tonumber(ARGV[2]), ARGV[3], tonumber(string.match(ARGV[5], ' (%d+)$'))
  local taken = {}
  -- No line is due later than this from now. One that seems to be was written while the server's clock was ahead.
  local latest = string.format('(%.0f', after(ARGV[4]))
  for _, line in ipairs(redis.call('ZRANGEBYSCORE', outbox, latest, '+inf', 'LIMIT', 0, 64)) do
    redis.call('ZADD', outbox, now, line)
  end
  for _, line in ipairs(redis.call('ZRANGEBYSCORE', outbox, '-inf', now, 'LIMIT', 0, most)) do
    local id = redis.call('LINDEX', key(line), 0)
    local message = id and redis.call('HGET', messages, id)
    if not message then
      advance(line, id or '')
    else
      redis.call('ZADD', outbox, after(lease), line)
      local numbers = {
        redis.call('HINCRBY', attempts, id, 1), redis.call('HINCRBY', failures, line, 1),
        redis.call('HINCRBY', silent, id, 1) - 1, waited(id, callers_clock),
      }
      taken[#taken + 1], taken[#taken + 2] = line, id
      for _, number in ipairs(numbers) do taken[#taken + 1] = string.format('%.0f', number) end
      taken[#taken + 1] = message
    end
  end
  return taken
end

function verbs.done()
  local line, id = ARGV[2], ARGV[3]
  if not counts(line, id, ARGV[4]) then return 0 end
  redis.call('HDEL', failures, line)
  advance(line, id)
  return 1
end

function verbs.postpone()
  local line, id = ARGV[2], ARGV[3]
  if not counts(line, id, ARGV[4]) then return 0 end
  redis.call('HDEL', silent, id)
  redis.call('ZADD', outbox, after(ARGV[5]), line)
  return 1
end

function verbs.give_up()
  local line, id = ARGV[2], ARGV[3]
  if not counts(line, id, ARGV[4]) then return 0 end
  bury('outbox', redis.call('HGET', messages, id), 'undeliverable', ARGV[6], ARGV[5])
  if ARGV[7] == '1' then redis.call('HDEL', failures, line) end
  advance(line, id)
  redis.call('LPUSH', list, ARGV[8])
  -- A wake-up is a hint: one that Redis refuses must not stop what was written.
  redis.pcall('PUBLISH', ARGV[9], 'new')
  return 1
end

return verbs[ARGV[1]]()

-- Messages that must leave for the application behind the service. Each belongs to a line, which is a session
-- or a user; a line's messages leave in their order, one at a time, and lines know nothing of each other.
--
-- The outbox is one sorted set of lines, each by the moment at which its first message is due: now, after the
-- pause of a failed attempt, or, while a replica tries, when its lease is over. So a line is in one replica's
-- hands at a time, and goes to another when that one falls silent. Moments are in microseconds.
--
-- KEYS  1 the outbox  2 messages by id  3 attempts by id  4 the dead list
-- ARGV  1 verb, and then
--       add       2 line  3 id  4 message  5 messages in the outbox  6 messages in a line
--       take      2 replica  3 lines  4 milliseconds of the lease  5 attempts  6 dead entries  7 bytes of a dead one
--       done      2 line  3 id  4 attempt
--       postpone  2 line  3 id  4 attempt  5 milliseconds
--       give_up   2 line  3 id  4 attempt  5 replica  6 detail  7 dead entries  8 bytes of a dead one

local outbox, messages, attempts, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local function after(milliseconds)
  return now + tonumber(milliseconds) * 1000
end

local function key(line)
  return outbox .. ':' .. line
end

-- Takes the first message out of a line; the next one is due at once.
local function advance(line, id)
  redis.call('LPOP', key(line))
  redis.call('HDEL', messages, id)
  redis.call('HDEL', attempts, id)
  if redis.call('EXISTS', key(line)) == 1 then redis.call('ZADD', outbox, now, line) else redis.call('ZREM', outbox, line) end
end

local function bury(line, id, replica, detail, entries, bytes)
  local raw = redis.call('HGET', messages, id)
  redis.call('XADD', dead, 'MAXLEN', entries, '*', 'reason', 'undeliverable', 'detail', detail, 'size', #raw,
    'claimed_by', replica, 'raw', string.sub(raw, 1, tonumber(bytes)))
  advance(line, id)
end

-- Whether an attempt is the present one at the first message of its line.
local function counts(line, id, attempt)
  return redis.call('LINDEX', key(line), 0) == id and redis.call('HGET', attempts, id) == attempt
end

-- Longest pause of a line, in milliseconds, and more.
local LATEST_MS = 7200000

local verbs = {}

function verbs.add()
  local line, id = ARGV[2], ARGV[3]
  if redis.call('HEXISTS', messages, id) == 1 then return 'repeated' end
  if redis.call('HLEN', messages) >= tonumber(ARGV[5]) then return 'full' end
  if redis.call('LLEN', key(line)) >= tonumber(ARGV[6]) then return 'line_full' end
  redis.call('HSET', messages, id, ARGV[4])
  redis.call('RPUSH', key(line), id)
  redis.call('ZADD', outbox, 'NX', now, line)
  return 'added'
end

function verbs.take()
  local replica, most, lease, attempts_max = ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
  local taken, given_up = {}, 0
  -- No line is due later than this from now. One that seems to be was written while the server's clock was ahead.
  local latest = string.format('(%.0f', after(LATEST_MS))
  for _, line in ipairs(redis.call('ZRANGEBYSCORE', outbox, latest, '+inf', 'LIMIT', 0, 64)) do
    redis.call('ZADD', outbox, now, line)
  end
  for _, line in ipairs(redis.call('ZRANGEBYSCORE', outbox, '-inf', now, 'LIMIT', 0, most)) do
    local id = redis.call('LINDEX', key(line), 0)
    local message = id and redis.call('HGET', messages, id)
    local before = tonumber(id and redis.call('HGET', attempts, id) or 0)
    if not message then
      advance(line, id or '')
    elseif before >= attempts_max then
      bury(line, id, replica, before .. ' attempts, and whoever made the last one fell silent', ARGV[6], ARGV[7])
      given_up = given_up + 1
    else
      redis.call('HSET', attempts, id, before + 1)
      redis.call('ZADD', outbox, after(lease), line)
      for _, part in ipairs({ line, id, tostring(before + 1), message }) do taken[#taken + 1] = part end
    end
  end
  return { given_up, taken }
end

function verbs.done()
  local line, id = ARGV[2], ARGV[3]
  if not counts(line, id, ARGV[4]) then return 0 end
  advance(line, id)
  return 1
end

function verbs.postpone()
  local line, id = ARGV[2], ARGV[3]
  if not counts(line, id, ARGV[4]) then return 0 end
  redis.call('ZADD', outbox, after(ARGV[5]), line)
  return 1
end

function verbs.give_up()
  local line, id = ARGV[2], ARGV[3]
  if not counts(line, id, ARGV[4]) then return 0 end
  bury(line, id, ARGV[5], ARGV[6], ARGV[7], ARGV[8])
  return 1
end

return verbs[ARGV[1]]()

-- The queue of jobs. One script with seven verbs, so that a worker in any language needs this file and a
-- Redis client, and nothing else: docs/protocol/jobs.md is its manual.
--
-- The queue is one sorted set of ids, each by the moment at which it is due. A new job is due now; one that
-- was taken is due when its lease is over, and one that failed when its pause is over. So the queue, the
-- leases and the retries are one thing, and the job that has been due longest is always the next.
-- Moments are in microseconds, so that two jobs of one millisecond keep their order.
--
-- Anybody may begin any number of sessions, so the jobs of owners who are not signed in are counted together: a set has the
-- ids of those that wait or run.
--
-- Two owners may use the same id for a job. So the id that workers use names the owner too, and the owner's own id is the
-- field 'own_id'.
--
-- KEYS  1 the queue, whose name ends in 'jobs'  2 the list of notifications
-- ARGV  1 verb  2 wake-up channel  3 milliseconds that a job is kept after its last change, and then
--       enqueue  4 id  5 the owner's own id  6 owner  7 to, as JSON  8 name  9 input, as JSON  10 jobs in the queue
--                11 jobs listed for an owner  12 jobs of an owner that wait or run  13 such jobs of all
--                owners who are not signed in
--       take     4 worker  5 milliseconds of the lease  6 attempts  7 jobs looked at
--       report   4 id  5 attempt  6 progress  7 milliseconds of the lease
--       done     4 id  5 attempt  6 result, as JSON  7 bytes of a result
--       fail     4 id  5 attempt  6 reason, as JSON  7 bytes of a result  8 attempts  9 milliseconds of the pause
--       release  4 id  5 attempt
--       list     4 owner

local queue, list = KEYS[1], KEYS[2]
local verb, channel, keep = ARGV[1], ARGV[2], ARGV[3]
local prefix = string.match(queue, '^(.*)jobs$')
local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(now_us / 1000)

local function key(id)
  return prefix .. 'job:' .. id
end

-- No job is due later than this from now, so that a wrong second of the server's clock delays no job for long.
local LATEST_MS = 600000

local function after(milliseconds)
  return now_us + math.min(tonumber(milliseconds), LATEST_MS) * 1000
end

-- Pushes the notification with the present state of a job. Its id counts the changes of the job. 'to' and 'result' are
-- inserted as the JSON that they are, since cjson would not reproduce them exactly.
local function notify(id)
  local job = redis.call('HMGET', key(id), 'to', 'name', 'status', 'progress', 'result', 'own_id', 'owner')
  local n = redis.call('HINCRBY', key(id), 'reports', 1) - 1
  local to, name, status, progress, result = job[1], job[2], job[3], job[4], job[5] or 'null'
  -- Two owners may have jobs of one id, and of two entries with one id the second would be dropped.
  local own, report = job[6] or id, n
  if job[6] then report = n .. ':' .. string.sub(redis.sha1hex(job[7]), 1, 12) end
  local severity = ({ done = 'success', failed = 'error' })[status] or 'info'
  local body = status == 'running' and progress .. ' %' or status
  redis.call('LPUSH', list, table.concat({
    '{"id":', cjson.encode('job:' .. own .. ':' .. report), ',"collapse_key":', cjson.encode('job:' .. own),
    ',"to":', to, ',"title":', cjson.encode(name), ',"body":"', body, '","severity":"', severity,
    '","data":{"job":{"id":', cjson.encode(own), ',"status":"', status, '","progress":', progress, ',"result":', result, '}}}',
  }))
  -- A wake-up is a hint: one that Redis refuses must not stop what was written.
  redis.pcall('PUBLISH', channel, 'new')
end

-- The jobs of owners who are not signed in that wait or run.
local anonymous = queue .. ':anonymous'
-- Ids of this set that are checked when it is full.
local LOOKS = 64

-- Removes a job from the queue that does not wait or run any more.
local function leave(id)
  redis.call('ZREM', queue, id)
  redis.call('SREM', anonymous, id)
end

-- Whether as many of them wait or run as allowed. Ids that a worker with an earlier script left in the set are
-- removed first.
local function is_anonymous_full(most)
  if redis.call('SCARD', anonymous) < most then return false end
  for _, id in ipairs(redis.call('SRANDMEMBER', anonymous, LOOKS)) do
    if not redis.call('ZSCORE', queue, id) then redis.call('SREM', anonymous, id) end
  end
  return redis.call('SCARD', anonymous) >= most
end

-- Writes the new fields of a job and when it is due again, if ever, and pushes the notification of the change.
local function change(id, due, ...)
  redis.call('HSET', key(id), 'updated_at', now, ...)
  redis.call('PEXPIRE', key(id), keep)
  if due then redis.call('ZADD', queue, due, id) else leave(id) end
  notify(id)
end

-- Why a text is not JSON that all programs read alike; nil where it is. It applies the same rules as the service's other
-- entrances (protocol/src/json.rs), where cjson is laxer: NaN and Infinity, bytes that are not UTF-8 or control the
-- terminal, numbers out of range.
local function fault_of(text, levels)
  local rest = text
  for _, sign in ipairs({
    '\240[\144-\191][\128-\191][\128-\191]', '[\241-\243][\128-\191][\128-\191][\128-\191]',
    '\244[\128-\143][\128-\191][\128-\191]', '\224[\160-\191][\128-\191]', '[\225-\236\238\239][\128-\191][\128-\191]',
    '\237[\128-\159][\128-\191]', '[\194-\223][\128-\191]',
  }) do
    rest = string.gsub(rest, sign, ' ')
  end
  if string.find(rest, '[\128-\255]') then return 'not UTF-8' end

  local at = 1
  local function take(pattern)
    local found = string.match(text, '^' .. pattern, at)
    if found then at = at + #found end
    return found
  end
  local function quoted()
    if not take('"') then return 'a text is missing at byte ' .. at end
    while true do
      take('[^"\\%z\1-\31]+')
      if take('"') then return nil end
      local half = take('\\u[dD][89abAB]%x%x')
      if half then
        if not take('\\u[dD][c-fC-F]%x%x') then return 'half of a surrogate pair before byte ' .. at end
      elseif string.match(text, '^\\u[dD][c-fC-F]%x%x', at) then
        return 'half of a surrogate pair at byte ' .. at
      elseif not (take('\\["\\/bfnrt]') or take('\\u%x%x%x%x')) then
        return 'a text that does not go on at byte ' .. at
      end
    end
  end
  local value
  -- Reads the elements between two brackets.
  local function all(close, one, left)
    if left == 0 then return 'more than ' .. levels .. ' levels' end
    take('[ \t\r\n]*')
    if take(close) then return nil end
    while true do
      local fault = one(left - 1)
      if fault then return fault end
      take('[ \t\r\n]*')
      if take(close) then return nil end
      if not take(',') then return 'a comma is missing at byte ' .. at end
    end
  end
  local function field(left)
    take('[ \t\r\n]*')
    local fault = quoted()
    if fault then return fault end
    take('[ \t\r\n]*')
    if not take(':') then return 'a colon is missing at byte ' .. at end
    return value(left)
  end
  value = function(left)
    take('[ \t\r\n]*')
    if take('%[') then return all('%]', value, left) end
    if take('{') then return all('}', field, left) end
    if string.sub(text, at, at) == '"' then return quoted() end
    if take('true') or take('false') or take('null') then return nil end
    local from = at
    if not (take('-?0') or take('-?[1-9]%d*')) then return 'no value at byte ' .. at end
    take('%.%d+')
    take('[eE][+-]?%d+')
    if math.abs(tonumber(string.sub(text, from, at - 1))) == math.huge then return 'a number out of range' end
  end
  local fault = value(levels)
  take('[ \t\r\n]*')
  return fault or (at <= #text and 'more after its end, at byte ' .. at) or nil
end

-- A report holds a result three levels down, and an entry has at most 127.
local RESULT_LEVELS = 124

-- A result that is not JSON, or a large one, would make the notification unreadable. The worker gets an error, the job has
-- not changed and stays with this worker, which may send another result, or report that it failed.
local function result_of(text, max_bytes)
  if #text > tonumber(max_bytes) then error('a result has at most ' .. max_bytes .. ' bytes, this has ' .. #text, 0) end
  local fault = fault_of(text, RESULT_LEVELS)
  if fault then error('a result is JSON that all programs read alike: ' .. fault, 0) end
  return text
end

-- Whether this attempt at a job is the one that counts, and how the job stands.
local function attempt_counts(id, attempt)
  local job = redis.call('HMGET', key(id), 'attempt', 'status', 'progress')
  return job[1] == attempt, job[2], tonumber(job[3])
end

-- How many attempts went wrong, with this one. Those that were given back did not.
local function failures(id, attempt)
  return tonumber(attempt) - tonumber(redis.call('HGET', key(id), 'released') or 0)
end

-- A job that seems to be due later was queued or leased while the server's clock was ahead.
local function bring_back()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', queue, string.format('(%.0f', after(LATEST_MS)), '+inf', 'LIMIT', 0, 64)) do
    redis.call('ZADD', queue, now_us, id)
  end
end

-- How many of an owner's jobs wait or run. Those that are not listed any more are older than the newest 20.
local function unfinished(listed)
  local count = 0
  for _, id in ipairs(redis.call('LRANGE', listed, 0, -1)) do
    local status = redis.call('HGET', key(id), 'status')
    if status == 'queued' or status == 'running' then count = count + 1 end
  end
  return count
end

local verbs = {}

function verbs.enqueue()
  local id, owner = ARGV[4], ARGV[6]
  local listed, is_user = queue .. ':' .. owner, string.sub(owner, 1, 5) == 'user:'
  if redis.call('EXISTS', key(id)) == 1 then return { 'repeated', redis.call('HGETALL', key(id)) } end
  if redis.call('ZCARD', queue) >= tonumber(ARGV[10]) then return { 'full', {} } end
  if unfinished(listed) >= tonumber(ARGV[12]) then return { 'owner_full', {} } end
  if not is_user and is_anonymous_full(tonumber(ARGV[13])) then return { 'anonymous_full', {} } end
  redis.call('HSET', key(id), 'id', id, 'own_id', ARGV[5], 'owner', owner, 'to', ARGV[7], 'name', ARGV[8],
    'input', ARGV[9], 'progress', 0, 'attempt', 0, 'created_at', now)
  redis.call('LPUSH', listed, id)
  redis.call('LTRIM', listed, 0, tonumber(ARGV[11]) - 1)
  redis.call('PEXPIRE', listed, keep)
  if not is_user then redis.call('SADD', anonymous, id) end
  change(id, now_us, 'status', 'queued')
  return { 'queued', redis.call('HGETALL', key(id)) }
end

function verbs.take()
  local worker, lease, attempts, looks = ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
  local given_up = 0
  bring_back()
  for _ = 1, looks do
    local id = redis.call('ZRANGEBYSCORE', queue, '-inf', now_us, 'LIMIT', 0, 1)[1]
    if not id then break end
    local attempt = tonumber(redis.call('HGET', key(id), 'attempt'))
    if not attempt then
      leave(id)
    elseif failures(id, attempt) >= attempts then
      change(id, nil, 'status', 'failed', 'result', cjson.encode('no worker came to its end in ' .. attempts .. ' attempts'))
      given_up = given_up + 1
    else
      redis.call('HDEL', key(id), 'result')
      change(id, after(lease), 'status', 'running', 'progress', 0, 'attempt', attempt + 1, 'worker', worker)
      return { given_up, redis.call('HGETALL', key(id)) }
    end
  end
  return { given_up, {} }
end

-- A report without progress only renews the lease, so that repeating one is harmless.
function verbs.report()
  -- In Lua 'nan' and 'inf' are numbers.
  if not string.match(ARGV[6], '^-?%d+%.?%d*$') then error('progress is a number from 0 to 100', 0) end
  local id, progress, lease = ARGV[4], math.max(0, math.min(100, math.floor(tonumber(ARGV[6])))), ARGV[7]
  local counts, status, before = attempt_counts(id, ARGV[5])
  if not counts or status ~= 'running' then return 0 end
  if progress > before then
    change(id, after(lease), 'progress', progress)
  else
    redis.call('ZADD', queue, after(lease), id)
    redis.call('PEXPIRE', key(id), keep)
  end
  return 1
end

function verbs.done()
  local id, result = ARGV[4], result_of(ARGV[6], ARGV[7])
  local counts, status = attempt_counts(id, ARGV[5])
  if not counts then return 0 end
  if status == 'running' then change(id, nil, 'status', 'done', 'progress', 100, 'result', result) end
  return (status == 'running' or status == 'done') and 1 or 0
end

function verbs.fail()
  local id, attempt, reason, attempts = ARGV[4], ARGV[5], result_of(ARGV[6], ARGV[7]), tonumber(ARGV[8])
  local counts, status = attempt_counts(id, attempt)
  if not counts or status == 'done' then return 0 end
  if status == 'running' and failures(id, attempt) >= attempts then
    change(id, nil, 'status', 'failed', 'result', reason)
  elseif status == 'running' then
    change(id, after(ARGV[9]), 'status', 'queued', 'result', reason)
  end
  return 1
end

-- A worker that is stopped gives its job back: the next one may begin at once, and nothing has failed.
function verbs.release()
  local id = ARGV[4]
  local counts, status = attempt_counts(id, ARGV[5])
  if not counts or (status ~= 'running' and status ~= 'queued') then return 0 end
  if status == 'running' then
    redis.call('HINCRBY', key(id), 'released', 1)
    change(id, now_us, 'status', 'queued')
  end
  return 1
end

function verbs.list()
  local jobs = {}
  for _, id in ipairs(redis.call('LRANGE', queue .. ':' .. ARGV[4], 0, -1)) do
    local job = redis.call('HGETALL', key(id))
    if #job > 0 then jobs[#jobs + 1] = job end
  end
  return jobs
end

return verbs[verb]()

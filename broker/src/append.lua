-- After sequence.lua and timestamp.lua, and in front of every script that appends: gives positions, appends to
-- history, and gathers what is to be published, trimmed and expired until the script calls finish().
--
-- ARGV  1 fresh epoch id  2 prefix of the other names  3 who appends  4 'all', or 'own' where nothing is kept
--       or published  5 entries in a history  6 milliseconds that a history of everyone or a topic is kept
--       7 the same of a user or session; a script's own arguments follow

local prefix, appender, publishes = ARGV[2], ARGV[3], ARGV[4] == 'all'
local age = { everyone = tonumber(ARGV[6]), topic = tonumber(ARGV[6]), user = tonumber(ARGV[7]), session = tonumber(ARGV[7]) }

-- What did not succeed, and what no entry in history depends on.
local faults = {}
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) ~= 'table' or not answer.err then return answer end
  faults[#faults + 1] = answer.err
end

-- Neighbours for the same channel share one message; positions rise within and between messages.
-- How many replicas heard the last message on each channel is kept.
local message, message_for, listeners = nil, nil, {}
local function publish()
  if message then listeners[message_for] = try('PUBLISH', message_for, table.concat(message)) end
  message = nil
end

local function gather(audience, kind, position, prev, raw)
  -- A replica hears all connections of its run on one channel: their names less the last dash and what follows.
  local channel = prefix .. 'fanout:' .. (string.match(audience, '^(connection:.+)%-[^-]*$') or audience)
  if message_for ~= channel then publish() end
  if not message then message, message_for = { epoch, ' ', appender, '\n' }, channel end
  for _, part in ipairs({ position, ' ', prev, ' ', kind, ' ', #raw, '\n', raw }) do message[#message + 1] = part end
end

-- The last position that was given out, and of the histories that were written to.
local ms, n = parse(last)
local tails = {}

-- Gives an entry its position and its place in history; returns both it and the position before it in the
-- audience, or nil and why this history can take nothing. The history is the first that is written to: any
-- other error is raised before the entry has left a trace.
local function append(kind, audience, raw)
  local keep = publishes and age[string.match(audience, '^%a+')]
  local history = prefix .. 'history:' .. audience
  local prev = keep and (tails[audience] or tail_of(history)) or '0-0'
  local at_ms, at_n = ms, n
  -- A history that was kept while the sequence was lost may end in the future.
  local prev_ms, prev_n = parse(prev)
  if prev_ms > at_ms or (prev_ms == at_ms and prev_n > at_n) then at_ms, at_n = prev_ms, prev_n end
  at_ms, at_n = following(at_ms, at_n)
  if at_ms >= NUMBER_MAX or at_n >= NUMBER_MAX then return nil, history .. ' ends at ' .. prev end
  local position = write(at_ms, at_n)
  if keep then
    local added = redis.pcall('XADD', history, 'MINID', '~', write(now - keep, 0), position,
      'claimed_by', appender, 'kind', kind, 'prev', prev, 'entry', raw)
    if type(added) == 'table' then
      if string.find(added.err, '^WRONGTYPE') then return nil, history .. ' is no stream' end
      error(added)
    end
    tails[audience] = position
  end
  ms, n = at_ms, at_n
  if publishes then gather(audience, kind, position, prev, raw) end
  return position, prev
end

local function finish()
  publish()
  for audience in pairs(tails) do
    local history = prefix .. 'history:' .. audience
    try('XTRIM', history, 'MAXLEN', '~', ARGV[5])
    try('PEXPIRE', history, age[string.match(audience, '^%a+')])
  end
  redis.call('HSET', KEYS[1], 'last', write(ms, n))
end


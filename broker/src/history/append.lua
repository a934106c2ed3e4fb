-- After sequence.lua, keep.lua and timestamp.lua, and before every script that appends: gives positions, appends to history,
-- and gathers the messages to publish and the histories to trim until the script calls finish().
--
-- ARGV  1 fresh epoch id and clock  2 prefix of the other keys  3 prefix of the channels  4 the replica that appends
--       5 'all', or 'own' where entries are neither stored nor published  6 retention; a script's own arguments follow

-- The format of an entry in history; a reader that does not know it skips the entry. In a fan-out message this format is a
-- head of two words, as in releases before formats had numbers; a head of a later format has more.
local FORMAT = '1'

local prefix, channels, appender, publishes = ARGV[2], ARGV[3], ARGV[4], ARGV[5] == 'all'
local retention = read_retention(ARGV[6])

-- The errors of commands that no entry in history depends on.
local faults = {}
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) ~= 'table' or not answer.err then return answer end
  faults[#faults + 1] = answer.err
end

-- Neighbours for the same channel share one message; positions rise within and between messages.
-- `listeners` has how many replicas received the last message on each channel.
local message, message_for, listeners = nil, nil, {}
local function publish()
  if message then listeners[message_for] = try('PUBLISH', message_for, table.concat(message)) end
  message = nil
end

local function gather(audience, kind, position, prev, raw)
  -- A replica subscribes to one channel for all connections of its run: their names less the last dash and what follows.
  local channel = channels .. 'fanout:' .. (string.match(audience, '^(connection:.+)%-[^-]*$') or audience)
  if message_for ~= channel then publish() end
  if not message then message, message_for = { epoch, ' ', appender, '\n' }, channel end
  for _, part in ipairs({ position, ' ', prev, ' ', kind, ' ', #raw, '\n', raw }) do message[#message + 1] = part end
end

-- The last position that was given out, and of each history that was written to: its last position, how many entries it
-- holds, and how many bytes were added.
local ms, n = parse(last)
local tails = {}

-- Gives an entry its position and appends it to history. Returns its position and the one before it in the audience; or nil
-- and the reason why this history can take no entry. The history is the first key that is written: any other error is raised
-- before the entry has changed a key.
local function append(kind, audience, raw)
  local keep = publishes and retention[string.match(audience, '^%a+')]
  local history = prefix .. 'history:' .. audience
  local tail = keep and tails[audience]
  if keep and not tail then
    local position, entries = tail_of(history)
    tail = { position = position or '0-0', entries = entries or 0, bytes = 0, keep = keep }
  end
  local prev = tail and tail.position or '0-0'
  local at_ms, at_n = ms, n
  -- A history may have survived the loss of the sequence, and then it may end later than the sequence.
  local prev_ms, prev_n = parse(prev)
  if prev_ms > at_ms or (prev_ms == at_ms and prev_n > at_n) then at_ms, at_n = prev_ms, prev_n end
  at_ms, at_n = following(at_ms, at_n)
  if at_ms >= NUMBER_MAX or at_n >= NUMBER_MAX then return nil, history .. ' ends at ' .. prev end
  local position = write(at_ms, at_n)
  if keep then
    local added = redis.pcall('XADD', history, 'MINID', '~', write(now - keep.age, 0), position,
      'format', FORMAT, 'claimed_by', appender, 'kind', kind, 'prev', prev, 'entry', raw)
    if type(added) == 'table' then
      if string.find(added.err, '^WRONGTYPE') then return nil, history .. ' is not a stream' end
      error(added)
    end
    tail.position, tail.entries, tail.bytes = position, tail.entries + 1, tail.bytes + #raw
    tails[audience] = tail
  end
  ms, n = at_ms, at_n
  if publishes then gather(audience, kind, position, prev, raw) end
  return position, prev
end

-- Measures a history in each of so many entries, and at once when much was added.
local function may_be_full(tail)
  return tail.entries % MEASURE_EVERY == 0 or tail.bytes * MEASURE_EVERY > tail.keep.bytes
end

local function finish()
  publish()
  for audience, tail in pairs(tails) do
    local history = prefix .. 'history:' .. audience
    if tail.entries > tail.keep.entries then try('XTRIM', history, 'MAXLEN', '~', tail.keep.entries) end
    if may_be_full(tail) then
      local ok, fault = pcall(fit, history, tail.keep.bytes)
      if not ok then faults[#faults + 1] = type(fault) == 'table' and fault.err or tostring(fault) end
    end
    try('PEXPIRE', history, tail.keep.age)
  end
  redis.call('HSET', KEYS[1], 'last', write(ms, n))
  if not is_held_back then redis.call('HSET', KEYS[1], 'clock', clock) end
end

-- Takes a batch of entries from the list and, in the same atomic step, appends each to the history of
-- its audience and publishes it there.
--
-- It looks first, writes then, and pops last: an error after a pop would lose the entry. It decodes
-- only to route, and stores and publishes the entry's own bytes, since cjson turns [] into {} and
-- rounds 9007199254740993. What it cannot route goes to the dead list and stops nothing.
--
-- KEYS  1 sequence  2 list  3 ids:a  4 ids:b  5 dead
-- ARGV  1 fresh epoch id  2 prefix of the other names  3 replica  4 'all' or 'own'
--       5 entries and 6 bytes of a batch  7 bytes of an entry  8 milliseconds that ids are kept
--       9 ids in one set  10 entries in a history  11 milliseconds that a history of everyone or a topic
--       is kept  12 the same of a user or session  13 entries in the dead list  14 bytes kept of a dead one
--       15 bytes of a name

local list, dead = KEYS[2], KEYS[5]
local prefix, replica, publishes = ARGV[2], ARGV[3], ARGV[4] == 'all'
local max_entries, max_bytes, max_entry_bytes = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local ids_keep, ids_max, history_max = tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10]
local age = { everyone = tonumber(ARGV[11]), topic = tonumber(ARGV[11]), user = tonumber(ARGV[12]), session = tonumber(ARGV[12]) }
local name_max = tonumber(ARGV[15])

-- Look: the oldest entries are on the right. Small steps, so that a few large entries are not copied for nothing.
local batch, bytes = {}, 0
while #batch < max_entries and bytes < max_bytes do
  local step = redis.call('LRANGE', list, -(#batch + 16), -(#batch + 1))
  if #step == 0 then break end
  for i = #step, 1, -1 do
    if #batch == max_entries or bytes >= max_bytes then break end
    batch[#batch + 1] = step[i]
    bytes = bytes + #step[i]
  end
end

local function name(value)
  return type(value) == 'string' and #value >= 1 and #value <= name_max
end

local function absent(value)
  return value == nil or value == cjson.null
end

-- The audience's kind and full name, or nil and what is wrong.
local function route_to(to)
  if absent(to) or to == 'everyone' then return 'everyone', 'everyone' end
  if type(to) ~= 'table' then return nil, 'to: neither everyone nor an object' end
  local kind, value = next(to)
  if (age[kind] or kind == 'connection') and kind ~= 'everyone' and name(value) and next(to, kind) == nil then
    return kind, kind .. ':' .. value
  end
  return nil, 'to: not exactly one of user, session, topic and connection with a name'
end

-- What the script has to know of an entry, or nil with a reason and what is wrong.
local function route(raw)
  if #raw > max_entry_bytes then return nil, 'too_large', #raw .. ' bytes, at most ' .. max_entry_bytes end
  local at = string.find(raw, '[^ \t\r\n\f]')
  if not at then return nil, 'empty', 'an entry of blanks' end
  if string.sub(raw, at, at) ~= '{' then return { kind = 'everyone', audience = 'everyone' } end
  local ok, json = pcall(cjson.decode, raw)
  if not ok then return nil, 'invalid', 'not JSON: ' .. tostring(json) end
  if not absent(json.id) and not name(json.id) then return nil, 'invalid', 'id: not a text of 1 to ' .. name_max .. ' bytes' end
  if not absent(json.from) and not name(json.from) then return nil, 'invalid', 'from: not a text of 1 to ' .. name_max .. ' bytes' end
  local function text(value) return type(value) == 'string' and value ~= '' end
  if not text(json.title) and not text(json.body) then return nil, 'invalid', 'a notification needs a title or a body' end
  local kind, audience = route_to(json.to)
  if not kind then return nil, 'invalid', audience end
  local id
  if not absent(json.id) then id = (absent(json.from) and '' or json.from) .. '\n' .. json.id end
  return { kind = kind, audience = audience, id = id }
end

-- Two sets of ids take turns: the older one is dropped whole, so that no id costs a key of its own.
local turn = redis.call('HMGET', KEYS[1], 'ids_turn', 'ids_since')
local current, older = KEYS[3], KEYS[4]
if turn[1] == 'b' then current, older = older, current end
if not turn[1] then
  redis.call('HSET', KEYS[1], 'ids_turn', 'a', 'ids_since', now)
elseif now - tonumber(turn[2]) >= ids_keep or redis.call('SCARD', current) >= ids_max then
  redis.call('UNLINK', older)
  current, older = older, current
  redis.call('HSET', KEYS[1], 'ids_turn', current == KEYS[3] and 'a' or 'b', 'ids_since', now)
end

local function repeated(id)
  return redis.call('SISMEMBER', current, id) == 1 or redis.call('SISMEMBER', older, id) == 1
end

-- The last position of an audience's history, from Redis once a batch.
local tails = {}
local function tail_of(audience)
  if not tails[audience] then
    tails[audience] = '0-0'
    local info = redis.pcall('XINFO', 'STREAM', prefix .. 'history:' .. audience)
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then tails[audience] = info[i + 1] end
    end
  end
  return tails[audience]
end

-- Neighbours for the same audience share one message; positions rise within and between messages.
local message, message_for
local function publish()
  if message then redis.call('PUBLISH', prefix .. 'fanout:' .. message_for, table.concat(message)) end
  message = nil
end

local ms, n = parse(last)
local claimed, repeats, refused = {}, 0, {}
for _, raw in ipairs(batch) do
  local entry, reason, detail = route(raw)
  if not entry then
    redis.call('XADD', dead, 'MAXLEN', ARGV[13], '*', 'reason', reason, 'detail', detail, 'size', #raw,
      'claimed_by', replica, 'raw', string.sub(raw, 1, tonumber(ARGV[14])))
    refused[#refused + 1] = reason
    refused[#refused + 1] = detail
  elseif entry.id and repeated(entry.id) then
    repeats = repeats + 1
  else
    local keep = publishes and age[entry.kind]
    local prev = keep and tail_of(entry.audience) or '0-0'
    -- A history that was kept while the sequence was lost may end in the future.
    local prev_ms, prev_n = parse(prev)
    if prev_ms > ms or (prev_ms == ms and prev_n > n) then ms, n = prev_ms, prev_n end
    ms, n = following(ms, n)
    local position = write(ms, n)
    if keep then
      redis.call('XADD', prefix .. 'history:' .. entry.audience, 'MINID', '~', write(now - keep, 0), position,
        'claimed_by', replica, 'prev', prev, 'entry', raw)
      tails[entry.audience] = position
    end
    if entry.id then redis.call('SADD', current, entry.id) end
    if publishes then
      if message_for ~= entry.audience then publish() end
      if not message then message, message_for = { epoch, ' ', replica, '\n' }, entry.audience end
      for _, part in ipairs({ position, ' ', prev, ' ', #raw, '\n', raw }) do message[#message + 1] = part end
    end
    for _, part in ipairs({ position, prev, entry.audience, raw }) do claimed[#claimed + 1] = part end
  end
end
publish()

if #batch > 0 then
  for audience in pairs(tails) do
    local kind = string.match(audience, '^%a+')
    local key = prefix .. 'history:' .. audience
    redis.call('XTRIM', key, 'MAXLEN', '~', history_max)
    redis.call('PEXPIRE', key, age[kind])
  end
  redis.call('PEXPIRE', current, ids_keep * 2)
  redis.call('HSET', KEYS[1], 'last', write(ms, n))
  redis.call('LTRIM', list, 0, -(#batch + 1))
end
return { epoch, redis.call('LLEN', list), repeats, refused, claimed }

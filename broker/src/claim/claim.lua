-- Takes a batch of entries from the list and, in the same atomic step, appends each to the history of
-- its audience and publishes it there. After dead.lua and status.lua.
--
-- It reads first, then writes, and pops last: an error after a pop would lose the entry. It decodes only to route, and
-- stores and publishes the entry's own bytes, since cjson turns [] into {} and rounds 9007199254740993. An entry that it cannot
-- route goes to the dead list and does not stop the others.
--
-- KEYS  1 sequence  2 list  3 ids:a  4 ids:b  5 the mode of the replicas that run now
-- ARGV  7 entries and 8 bytes of a batch  9 bytes of an entry  10 milliseconds that ids are kept
--       11 ids in one set  12 bytes of a name

-- A replica in another mode than those that run would claim entries that their readers then never receive.
local mode = redis.call('GET', KEYS[5])
if mode and mode ~= ARGV[5] then return { err = 'MODE replicas with FANOUT=' .. mode .. ' run here' } end

local list = KEYS[2]
local max_entries, max_bytes, max_entry_bytes = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local ids_keep, ids_max = tonumber(ARGV[10]), tonumber(ARGV[11])
local name_max = tonumber(ARGV[12])

-- The oldest entries are on the right. They are read one by one, since the size of an entry is known only once it is read.
local batch, bytes = {}, 0
while #batch < max_entries and bytes < max_bytes do
  local raw = redis.call('LINDEX', list, -(#batch + 1))
  if not raw then break end
  batch[#batch + 1] = raw
  bytes = bytes + #raw
end

-- Run the two final commands first, without effect: if they are refused (ACL, READONLY, OOM), fail before anything is
-- appended, or the next claim would append all of it again. With nothing to claim too: a replica learns by it that it
-- could not claim.
redis.call('HSET', KEYS[1], 'last', last)
redis.call('LTRIM', list, 0, -1)

-- A name is a text of 1 to 128 bytes. An integer stands for its digits, as far as numbers are exact.
local function name(value)
  if type(value) == 'number' and value == math.floor(value) and math.abs(value) <= NUMBER_MAX then
    value = string.format('%.0f', value)
  end
  if type(value) == 'string' and #value >= 1 and #value <= name_max then return value end
end

local function absent(value)
  return value == nil or value == cjson.null
end

-- The full name of the audience, or nil and the fault.
local function route_to(to)
  if absent(to) or to == 'everyone' then return 'everyone' end
  if type(to) ~= 'table' then return nil, 'to: neither everyone nor an object' end
  local kind, value = next(to)
  local is_topic = kind == 'topic' and type(value) == 'string'
  if kind == 'user' and type(value) == 'string' and string.sub(value, -6) == ':state' then
    return nil, 'to: a user whose name ends in :state'
  end
  -- The topic of a user's presence has the user's whole name.
  local named = name(is_topic and string.match(value, '^presence:(.+)$') or value)
  if (retention[kind] or kind == 'connection') and kind ~= 'everyone' and named and next(to, kind) == nil then
    return kind .. ':' .. (is_topic and value or named)
  end
  return nil, 'to: not exactly one of user, session, topic and connection with a name'
end

local BYTE_ORDER_MARK = '\239\187\191'
local UTF_16 = { ['\255\254'] = true, ['\254\255'] = true }

-- The audience of an entry, its id and its message in the ledger; or nil, a reason and the fault.
local function route(raw)
  if #raw > max_entry_bytes then return nil, 'too_large', #raw .. ' bytes, at most ' .. max_entry_bytes end
  if UTF_16[string.sub(raw, 1, 2)] then return nil, 'not_text', 'UTF-16: write it as UTF-8' end
  local at = string.find(raw, '[^ \t\r\n\f]')
  if not at then return nil, 'empty', 'a blank entry' end
  if string.sub(raw, at, at) ~= '{' then return { audience = 'everyone' } end
  local ok, json = pcall(cjson.decode, raw)
  if not ok then return nil, 'invalid', 'not JSON: ' .. tostring(json) end
  local id, from = name(json.id), name(json.from)
  if not absent(json.id) and not id then return nil, 'invalid', 'id: not a text of 1 to ' .. name_max .. ' bytes' end
  if not absent(json.from) and not from then return nil, 'invalid', 'from: not a text of 1 to ' .. name_max .. ' bytes' end
  local function text(value) return type(value) == 'string' and value ~= '' end
  if not text(json.title) and not text(json.body) then return nil, 'invalid', 'a notification needs a title or a body' end
  local audience, fault = route_to(json.to)
  if not audience then return nil, 'invalid', fault end
  -- With its length, so that no two pairs look the same, whatever is in a name.
  local remembered = id and (#(from or '') .. ':' .. (from or '') .. id)
  -- Only a notification to a user that has a sender and an id may be a message in the ledger.
  local user = string.match(audience, '^user:(.*)$')
  local message = id and user and from and { key = prefix .. 'message:' .. remembered, id = id, from = from, to = user }
  return { audience = audience, id = remembered, message = message }
end

-- Two sets of ids take turns: the older one is dropped whole, so that no id costs a key of its own.
local turn = redis.call('HMGET', KEYS[1], 'ids_turn', 'ids_since')
local current, older = KEYS[3], KEYS[4]
if turn[1] == 'b' then current, older = older, current end
local ids_since = tonumber(turn[2])
if not turn[1] then
  redis.call('HSET', KEYS[1], 'ids_turn', 'a', 'ids_since', clock)
elseif ids_since > now then
  -- The clock was ahead: without this the sets would not turn until that time has come.
  redis.call('HSET', KEYS[1], 'ids_since', clock)
elseif now - ids_since >= ids_keep or redis.call('SCARD', current) >= ids_max then
  redis.call('UNLINK', older)
  current, older = older, current
  redis.call('HSET', KEYS[1], 'ids_turn', current == KEYS[3] and 'a' or 'b', 'ids_since', clock)
end

local function repeated(id)
  return redis.call('SISMEMBER', current, id) == 1 or redis.call('SISMEMBER', older, id) == 1
end

-- The status of the message of an entry, where send.lua stored one in the ledger.
local function status_of(message)
  local known = redis.pcall('HMGET', message.key, 'from', 'to', 'status')
  if not known.err and known[1] == message.from and known[2] == message.to then return known[3] end
end

local claimed, repeats, refused = {}, 0, {}
local function refuse(raw, reason, detail, message)
  local people = message and status_of(message) and message.key
  bury(people and 'people' or 'producers', raw, reason, detail, appender, people)
  refused[#refused + 1] = reason
  refused[#refused + 1] = detail
end

-- Records in the ledger that a message is on its way.
local sent = {}
local function send(message)
  local status = status_of(message)
  if not status then return end
  try('HSET', message.key, 'claimed_by', appender)
  try('HDEL', message.key, 'buried')
  sent[message.key] = 'user:' .. message.to
  raise(message.key, message.from, message.id, status, 'sent')
end

local function take(raw)
  -- A byte order mark in front of a text, as Windows writes it, is not part of it.
  if string.sub(raw, 1, 3) == BYTE_ORDER_MARK then raw = string.sub(raw, 4) end
  local entry, reason, detail = route(raw)
  if not entry then return refuse(raw, reason, detail) end
  if entry.id and repeated(entry.id) then
    repeats = repeats + 1
    return
  end
  local position, prev = append('notification', entry.audience, raw)
  if not position then return refuse(raw, 'no_history', prev, entry.message) end
  if entry.id then try('SADD', current, entry.id) end
  if entry.message then send(entry.message) end
  for _, part in ipairs({ position, prev, entry.audience, entry.id or '', raw }) do claimed[#claimed + 1] = part end
end

-- Only the first write of an entry can fail, and then the batch ends before it: the next claim begins
-- there, and fails before it has written anything.
local taken = 0
for _, raw in ipairs(batch) do
  local ok, failure = pcall(take, raw)
  if not ok and taken == 0 then error(failure, 0) end
  if not ok then break end
  taken = taken + 1
end

if taken > 0 then
  finish()
  for key, audience in pairs(sent) do
    try('HSET', key, 'routed', listeners[channels .. 'fanout:' .. audience] or 0)
  end
  try('PEXPIRE', current, ids_keep * 2)
  redis.call('LTRIM', list, 0, -(taken + 1))
end
return { epoch, redis.call('LLEN', list), repeats, refused, claimed, faults }

-- Takes a batch of entries from the list and, in the same atomic step, appends each to the history of
-- its audience and publishes it there. After status.lua.
--
-- It looks first, writes then, and pops last: an error after a pop would lose the entry. It decodes
-- only to route, and stores and publishes the entry's own bytes, since cjson turns [] into {} and
-- rounds 9007199254740993. What it cannot route goes to the dead list and stops nothing.
--
-- KEYS  1 sequence  2 list  3 ids:a  4 ids:b  5 dead
-- ARGV  8 entries and 9 bytes of a batch  10 bytes of an entry  11 milliseconds that ids are kept
--       12 ids in one set  13 entries in the dead list  14 bytes kept of a dead one  15 bytes of a name

local list, dead = KEYS[2], KEYS[5]
local max_entries, max_bytes, max_entry_bytes = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local ids_keep, ids_max = tonumber(ARGV[11]), tonumber(ARGV[12])
local name_max = tonumber(ARGV[15])

-- Look: the oldest entries are on the right. One by one, since nothing tells the size of an entry but its copy.
local batch, bytes = {}, 0
while #batch < max_entries and bytes < max_bytes do
  local raw = redis.call('LINDEX', list, -(#batch + 1))
  if not raw then break end
  batch[#batch + 1] = raw
  bytes = bytes + #raw
end

-- Whoever may not end a claim must not begin one, or the next would append all of it again. Neither of these
-- changes anything.
if #batch > 0 then
  redis.call('HSET', KEYS[1], 'last', last)
  redis.call('LTRIM', list, 0, -1)
end

local function name(value)
  return type(value) == 'string' and #value >= 1 and #value <= name_max
end

local function absent(value)
  return value == nil or value == cjson.null
end

-- The audience's full name, or nil and what is wrong.
local function route_to(to)
  if absent(to) or to == 'everyone' then return 'everyone' end
  if type(to) ~= 'table' then return nil, 'to: neither everyone nor an object' end
  local kind, value = next(to)
  if kind == 'user' and type(value) == 'string' and string.sub(value, -6) == ':state' then
    return nil, 'to: a user whose name ends in :state'
  end
  -- The topic of a user's presence has the user's whole name.
  local named = kind == 'topic' and type(value) == 'string' and string.match(value, '^presence:(.+)$') or value
  if (age[kind] or kind == 'connection') and kind ~= 'everyone' and name(named) and next(to, kind) == nil then
    return kind .. ':' .. value
  end
  return nil, 'to: not exactly one of user, session, topic and connection with a name'
end

-- What the script has to know of an entry, or nil with a reason and what is wrong.
local function route(raw)
  if #raw > max_entry_bytes then return nil, 'too_large', #raw .. ' bytes, at most ' .. max_entry_bytes end
  local at = string.find(raw, '[^ \t\r\n\f]')
  if not at then return nil, 'empty', 'an entry of blanks' end
  if string.sub(raw, at, at) ~= '{' then return { audience = 'everyone' } end
  local ok, json = pcall(cjson.decode, raw)
  if not ok then return nil, 'invalid', 'not JSON: ' .. tostring(json) end
  if not absent(json.id) and not name(json.id) then return nil, 'invalid', 'id: not a text of 1 to ' .. name_max .. ' bytes' end
  if not absent(json.from) and not name(json.from) then return nil, 'invalid', 'from: not a text of 1 to ' .. name_max .. ' bytes' end
  local function text(value) return type(value) == 'string' and value ~= '' end
  if not text(json.title) and not text(json.body) then return nil, 'invalid', 'a notification needs a title or a body' end
  local audience, fault = route_to(json.to)
  if not audience then return nil, 'invalid', fault end
  local id
  if not absent(json.id) then
    local from = absent(json.from) and '' or json.from
    -- With its length, so that no two pairs look the same, whatever is in a name.
    id = #from .. ':' .. from .. json.id
  end
  -- Only who sends to a user in their own name may have a message in the ledger.
  local user = string.match(audience, '^user:(.*)$')
  local message = id and user and not absent(json.from) and { id = json.id, from = json.from, to = user }
  return { audience = audience, id = id, message = message }
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

local claimed, repeats, refused = {}, 0, {}
local function bury(raw, reason, detail)
  redis.call('XADD', dead, 'MAXLEN', ARGV[13], '*', 'reason', reason, 'detail', detail, 'size', #raw,
    'claimed_by', appender, 'raw', string.sub(raw, 1, tonumber(ARGV[14])))
  refused[#refused + 1] = reason
  refused[#refused + 1] = detail
end

-- Notes in the ledger that a message is on its way.
local sent = {}
local function send(message)
  local key = prefix .. 'message:' .. message.id
  local known = redis.pcall('HMGET', key, 'from', 'to', 'status')
  if known.err or known[1] ~= message.from or known[2] ~= message.to then return end
  try('HSET', key, 'claimed_by', appender)
  sent[key] = 'user:' .. message.to
  raise(key, message.from, message.id, known[3], 'sent')
end

local function take(raw)
  local entry, reason, detail = route(raw)
  if not entry then return bury(raw, reason, detail) end
  if entry.id and repeated(entry.id) then
    repeats = repeats + 1
    return
  end
  local position, prev = append('notification', entry.audience, raw)
  if not position then return bury(raw, 'no_history', prev) end
  if entry.id then try('SADD', current, entry.id) end
  if entry.message then send(entry.message) end
  for _, part in ipairs({ position, prev, entry.audience, raw }) do claimed[#claimed + 1] = part end
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
    try('HSET', key, 'routed', listeners[prefix .. 'fanout:' .. audience] or 0)
  end
  try('PEXPIRE', current, ids_keep * 2)
  redis.call('LTRIM', list, 0, -(taken + 1))
end
return { epoch, redis.call('LLEN', list), repeats, refused, claimed, faults }

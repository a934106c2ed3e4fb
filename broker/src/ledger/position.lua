-- Converts a cursor of any epoch to the present one. Entries from before this epoch began are in its data, or are lost;
-- a position of another epoch that is later than that beginning means nothing here. After sequence.lua.

local first_ms, first_n = parse(first)

local function later(a_ms, a_n, b_ms, b_n)
  return a_ms > b_ms or (a_ms == b_ms and a_n > b_n)
end

-- Milliseconds and number of a position of `of_epoch`, no later than the first of the present epoch where it is another.
local function here(of_epoch, position)
  local at_ms, at_n = parse(position)
  if of_epoch ~= epoch and later(at_ms, at_n, first_ms, first_n) then return first_ms, first_n end
  return at_ms, at_n
end

-- The user's read position in the present epoch; nil where there is none.
local function read_position(key)
  local of_epoch, position = string.match(redis.call('GET', key) or '', '^(%w+)%.(%d+%-%d+)$')
  if of_epoch then return here(of_epoch, position) end
end

-- The end of the sequence, and the last position of each of several histories, in one atomic step: a listener has missed the
-- entries of an audience between the last one that it received and this position. After sequence.lua.
--
-- KEYS  1 sequence  2… histories

local tails = {}
for i = 2, #KEYS do tails[i - 1] = tail_of(KEYS[i]) or '' end
return { epoch, last, tails }

-- Formats milliseconds since 1970 as RFC 3339 in UTC, as protocol/src/timestamp.rs does. The status of a message is appended
-- in the step that raises it, with the time of that step, so this script has to write it. Days are converted to a date by
-- Howard Hinnant's `civil_from_days` (https://howardhinnant.github.io/date_algorithms.html), in the eras since 1970 only.
local function timestamp(ms_since_1970)
  local seconds = math.floor(ms_since_1970 / 1000)
  local days, in_day = math.floor(seconds / 86400), seconds % 86400
  local shifted = days + 719468
  local era = math.floor(shifted / 146097)
  local doe = shifted % 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day, month = doy - math.floor((153 * mp + 2) / 5) + 1, mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day,
    math.floor(in_day / 3600), math.floor(in_day / 60) % 60, in_day % 60, ms_since_1970 % 1000)
end

-- Epoch milliseconds of the server; `override` lets a test say what time it is.
local function clock_now(override)
  if override and override ~= "" then return tonumber(override) end
  local time = redis.call("TIME")
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

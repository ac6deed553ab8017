-- @include lib/queue
-- Exact counters: summed here per call and written once, in the script that makes the transition.
-- Fields of <own>stats: "<what>:<more>:<job name>", see tickbird/storage/wire.py.

local MAX_TASK_NAMES = 200

local function open_stats(q)
  return { key = q.own("stats"), sums = {}, names = {} }
end

local function count(stats, field, by)
  stats.sums[field] = (stats.sums[field] or 0) + by
end

-- The name a job is counted under: its own, or "other" once a queue has too many.
local function counted_name(stats, name)
  local known = stats.names[name]
  if known then return known end
  known = name
  if redis.call("HEXISTS", stats.key, "task:" .. name) == 0 then
    local names = tonumber(redis.call("HGET", stats.key, "tasks")) or 0
    if names >= MAX_TASK_NAMES or #name > 128 then
      known = "other"
    else
      redis.call("HSET", stats.key, "task:" .. name, 1)
      redis.call("HINCRBY", stats.key, "tasks", 1)
    end
  end
  stats.names[name] = known
  return known
end

local function write_stats(stats)
  for field, by in pairs(stats.sums) do
    if by ~= 0 then redis.call("HINCRBY", stats.key, field, by) end
  end
end

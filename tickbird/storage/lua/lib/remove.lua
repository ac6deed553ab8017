-- @include lib/parents
-- What ceases to exist, and what it owes to others: its parent, its dedup key, its schedule.

-- Delete everything that belongs to jobs and nothing else does; their locks are not among it.
local function delete_jobs(q, ids)
  local keys = {}
  for _, id in ipairs(ids) do
    local job = q.job(id)
    keys[#keys + 1] = job
    keys[#keys + 1] = job .. ":logs"
    keys[#keys + 1] = job .. ":dependencies"
    keys[#keys + 1] = job .. ":processed"
    keys[#keys + 1] = job .. ":failed"
    keys[#keys + 1] = job .. ":unsuccessful"
    if #keys >= 3000 then
      redis.call("UNLINK", unpack(keys))
      keys = {}
    end
  end
  if #keys > 0 then redis.call("UNLINK", unpack(keys)) end
end

-- Fields of a job; none where there is no hash or something else stands under its key.
local function fields_of(q, id, ...)
  local v = redis.pcall("HMGET", q.job(id), ...)
  return v.err and {} or v
end

-- A parent waits no more for a child that goes; the result of one that was done stays with it.
local function leave_parent(call, id, parent_key)
  if parent_key and redis.call("SREM", parent_key .. ":dependencies", call.q.job(id)) == 1 then
    release_if_done(call, parent_key)
  end
end

-- Free the dedup key of a job that is removed, and drop the proposal kept beside it.
local function leave_dedup(q, id, dedup_id)
  if not dedup_id then return end
  local key = q["de:" .. dedup_id]
  if redis.call("GET", key) == id then redis.call("DEL", key, q["dn:" .. dedup_id]) end
end

-- Whether an id is the iteration its scheduler waits for: without it the schedule would end.
local function is_next_iteration(q, id)
  local scheduler, due_ms = string.match(id, "^repeat:(.*):(%d+)$")
  if not scheduler then return false end
  local next_ms = redis.call("ZSCORE", q["repeat"], scheduler)
  return next_ms ~= false and tonumber(next_ms) == tonumber(due_ms)
end

-- Delete jobs that are in no state any more, with their ties.
local function delete_with_ties(call, ids)
  for _, id in ipairs(ids) do
    local v = fields_of(call.q, id, "parentKey", "deid")
    leave_parent(call, id, v[1])
    leave_dedup(call.q, id, v[2])
  end
  delete_jobs(call.q, ids)
end

local STATES = { wait = "waiting", paused = "waiting", ["waiting-children"] = "waiting_children" }

-- `suffix` is that of the list or set they were in.
local function count_removed(call, suffix, by)
  count(call.stats, "removed:" .. (STATES[suffix] or suffix), by)
end

-- Apply a keep rule to a set of finished jobs: at most `limit` too old ones (newest of them
-- first), then what is past the newest `keep_count`; never more than 1,000 of each in a call.
-- Dedup keys with a time of their own outlast their jobs.
local function trim_finished(call, set, keep_count, age_s, limit)
  local removed = {}
  if age_s > 0 then
    removed = redis.call("ZRANGE", set, call.now_ms - age_s * 1000, "-inf", "BYSCORE", "REV",
      "LIMIT", 0, math.min(limit > 0 and limit or 1000, 1000))
    if #removed > 0 then redis.call("ZREM", set, unpack(removed)) end
  end
  if keep_count > 0 then
    local excess = redis.call("ZCARD", set) - keep_count
    if excess > 0 then
      local oldest = redis.call("ZRANGE", set, 0, math.min(excess, 1000) - 1)
      redis.call("ZREM", set, unpack(oldest))
      for _, id in ipairs(oldest) do removed[#removed + 1] = id end
    end
  end
  for _, id in ipairs(removed) do leave_parent(call, id, fields_of(call.q, id, "parentKey")[1]) end
  delete_jobs(call.q, removed)
end

-- @include lib/queue
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

-- Apply a keep rule to a set of finished jobs: at most `limit` too old ones (newest of them
-- first), then what is past the newest `keep_count`; never more than 1,000 of each in a call.
local function trim_finished(q, set, keep_count, age_s, limit, now_ms)
  local removed = {}
  if age_s > 0 then
    removed = redis.call("ZRANGE", set, now_ms - age_s * 1000, "-inf", "BYSCORE", "REV",
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
  delete_jobs(q, removed)
end

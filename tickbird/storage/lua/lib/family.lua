-- @include lib/remove
-- Removing one job from whatever state it is in, on request together with its children.

local REMOVED, MISSING, LOCKED, CHILD_LOCKED, NEXT_ITERATION, UNFINISHED = 0, 1, 2, 3, 4, 5

local SETS = { "completed", "waiting-children", "delayed", "failed", "prioritized" }
local LISTS = { "active", "wait", "paused" }

-- A list is searched from the end its job is nearer to, by the time it was added: at most half of
-- it is looked at, if it is in order. What that costs is taken from the call's budget.
local function leave_list(q, list, id, budget)
  local length = redis.call("LLEN", list)
  if length == 0 then return false end
  local from = -1
  if length > 1000 then
    local middle = redis.call("LINDEX", list, math.floor(length / 2))
    local middle_ms = tonumber(fields_of(q, middle, "timestamp")[1]) or 0
    if (tonumber(fields_of(q, id, "timestamp")[1]) or 0) > middle_ms then from = 1 end
    budget.left = budget.left - math.floor(length / 600)
  end
  return redis.call("LREM", list, from, id) > 0
end

-- Take a job out of the list or set it is in. Gives the suffix of that, or "unknown".
local function leave_state(q, id, budget)
  for _, set in ipairs(SETS) do
    if redis.call("ZREM", q[set], id) == 1 then return set end
  end
  for _, list in ipairs(LISTS) do
    if leave_list(q, q[list], id, budget) then
      if list == "active" then
        redis.call("ZREM", q.own("locks"), id)
        redis.call("SREM", q.stalled, id)
      end
      return list
    end
  end
  return "unknown"
end

local function remove_alone(call, id, budget)
  local q, job = call.q, call.q.job(id)
  local v = fields_of(q, id, "parentKey", "deid")
  if v[1] then child_removed(call, job, v[1]) end
  leave_dedup(q, id, v[2])
  local state = leave_state(q, id, budget)
  -- Under a global concurrency another job may start now.
  if state == "active" then call.pushed = true end
  delete_jobs(q, { id })
  emit(q, "removed", "jobId", id, "prev", state)
  count_removed(call, state, 1)
  budget.left = budget.left - 1
end

-- The four relations of a parent, the pending one last: it is released, and taken, only when there
-- is no other child left to remove.
local RELATIONS = {
  { suffix = ":processed", some = "HRANDFIELD", drop = "HDEL" },
  { suffix = ":failed", some = "HRANDFIELD", drop = "HDEL" },
  { suffix = ":unsuccessful", some = "ZRANDMEMBER", drop = "ZREM" },
  { suffix = ":dependencies", some = "SRANDMEMBER", drop = "SREM", pending = true },
}

-- Whether a worker has one of the pending children, down the tree. In families of over 1,000 the
-- others are looked at when their turn comes.
local function has_locked_child(job_key)
  local open, looked = { job_key }, 0
  while #open > 0 and looked < 1000 do
    local key = table.remove(open)
    for _, child_key in ipairs(redis.call("SRANDMEMBER", key .. ":dependencies", 1000)) do
      if redis.call("EXISTS", child_key .. ":lock") == 1 then return true end
      open[#open + 1] = child_key
      looked = looked + 1
    end
  end
  return false
end

local function remove_children(call, id, budget)
  local job = call.q.job(id)
  budget.open[job] = true
  for _, relation in ipairs(RELATIONS) do
    local key = job .. relation.suffix
    local children = redis.call(relation.some, key, 100)
    while #children > 0 do
      for _, child_key in ipairs(children) do
        if budget.left <= 0 then return UNFINISHED end
        local prefix, child_id = split_key(child_key)
        local is_locked = redis.call("EXISTS", child_key .. ":lock") == 1
        if is_locked and relation.pending then return CHILD_LOCKED end
        if prefix and not is_locked and not budget.open[child_key]
            and redis.call("EXISTS", child_key) == 1 then
          local child_call = call_for(call, prefix)
          local code = remove_children(child_call, child_id, budget)
          if code ~= REMOVED then return code end
          remove_alone(child_call, child_id, budget)
        end
        redis.call(relation.drop, key, child_key)
      end
      children = redis.call(relation.some, key, 100)
    end
  end
  return REMOVED
end

-- Remove a job. All refusals but a child taken meanwhile come before the first write.
-- `budget` = { left }: what this call may still do; UNFINISHED: call again for the same job.
local function remove_job(call, id, with_children, budget)
  local q, job = call.q, call.q.job(id)
  if redis.call("EXISTS", job .. ":lock") == 1 then return LOCKED end
  if redis.call("EXISTS", job) == 0 then
    local state = leave_state(q, id, budget)
    budget.left = budget.left - 1
    if state == "unknown" then return MISSING end
    emit(q, "removed", "jobId", id, "prev", state)
    count_removed(call, state, 1)
    return REMOVED
  end
  if is_next_iteration(q, id) and not fields_of(q, id, "finishedOn")[1] then
    return NEXT_ITERATION
  end
  if with_children then
    if has_locked_child(job) then return CHILD_LOCKED end
    budget.open = {}
    local code = remove_children(call, id, budget)
    if code ~= REMOVED then return code end
  end
  remove_alone(call, id, budget)
  return REMOVED
end

-- @include lib/add
-- @include lib/remove
-- The end of an attempt. Every way out of `active` goes through finish_attempt.

local DONE, LOCK_LOST, NOT_ACTIVE, VANISHED, CHILDREN_PENDING, CHILDREN_FAILED = 0, 1, 2, 3, 4, 5

-- Removing from a list is linear: long runners sit at the right end of `active`, the newest at
-- the left. Says which end to search from, by the start of the job in the middle.
local function search_end(q)
  local length = redis.call("LLEN", q.active)
  if length <= 256 then return nil end
  local middle = redis.call("LINDEX", q.active, math.floor(length / 2))
  return tonumber(redis.call("HGET", q.job(middle), "processedOn"))
end

local function leave_active(call, id)
  local q = call.q
  if call.middle_started_ms == nil then call.middle_started_ms = search_end(q) or false end
  local from = -1
  if call.middle_started_ms then
    local started_ms = tonumber(redis.call("HGET", q.job(id), "processedOn")) or 0
    if started_ms > call.middle_started_ms then from = 1 end
  end
  return redis.call("LREM", q.active, from, id)
end

local function count_attempt(stats, a, outcome)
  local name = counted_name(stats, a.name)
  count(stats, "run:" .. outcome .. ":" .. a.run_bucket .. ":" .. name, 1)
  count(stats, "run_ms:" .. outcome .. ":" .. name, a.run_ms)
  if a.wait_bucket >= 0 then
    count(stats, "wait:" .. a.wait_bucket .. ":" .. name, 1)
    count(stats, "wait_ms:" .. name, a.wait_ms)
  end
end

-- Put a finished job into `set`, or delete it; the rule's other victims go at the end of a run of
-- jobs with the same rule.
local function keep_or_delete(call, set, a)
  local q = call.q
  call.finished = true
  if a.keep_count == 0 then
    delete_jobs(q, { a.id })
    return
  end
  redis.call("ZADD", set, call.now_ms, a.id)
  redis.call("HSET", q.job(a.id), "finishedOn", call.now_ms)
  -- A rule trims everybody's jobs. One that nobody has asked for keeps away from queues that
  -- BullMQ's own clients use: their users expect to find what they have not removed.
  if a.is_default_rule and call.meta.has_peers then return end
  if a.keep_count > 0 or a.keep_age_s > 0 then
    call.trims[set .. a.keep_count .. ":" .. a.keep_age_s .. ":" .. a.keep_limit] =
      { set, a.keep_count, a.keep_age_s, a.keep_limit }
  end
end

local function set_failure(job, a, ...)
  if a.stacktrace ~= "" then
    redis.call("HSET", job, "failedReason", a.text, "stacktrace", a.stacktrace, ...)
  else
    redis.call("HSET", job, "failedReason", a.text, ...)
  end
end

-- BullMQ's own counts per minute, for workers that keep them: the list holds whole minutes, newest
-- at the left; the running minute is count - prevCount.
local function count_minute(call, kind)
  local data_points = call.data_points or 0
  if data_points == 0 then return end
  local key = call.q["metrics:" .. kind]
  local counted = redis.call("HINCRBY", key, "count", 1) - 1
  local v = redis.call("HMGET", key, "prevTS", "prevCount")
  local previous_ms = tonumber(v[1])
  if not previous_ms then
    redis.call("HSET", key, "prevTS", call.now_ms, "prevCount", 0)
    return
  end
  local minutes = math.floor(call.now_ms / 60000) - math.floor(previous_ms / 60000)
  minutes = math.min(minutes, data_points)
  if minutes <= 0 then return end
  redis.call("LPUSH", key .. ":data", counted - (tonumber(v[2]) or 0))
  for _ = 2, minutes do redis.call("LPUSH", key .. ":data", 0) end
  redis.call("LTRIM", key .. ":data", 0, data_points - 1)
  redis.call("HSET", key, "prevCount", counted, "prevTS", call.now_ms)
end

-- What a job that ends for good owes to others: its dedup key, its parent.
local function leave_relations(call, a, tell_parent)
  local v = redis.call("HMGET", call.q.job(a.id), "deid", "parentKey", "parent")
  if v[1] then release_dedup(call, v[1], a.id) end
  if v[2] then tell_parent(call, call.q.job(a.id), v[2], v[3]) end
end

local ends = {}

function ends.completed(call, a)
  local q, job = call.q, call.q.job(a.id)
  leave_relations(call, a, function(_, child_key, parent_key)
    child_completed(call, child_key, parent_key, a.text)
  end)
  redis.call("HINCRBY", job, "atm", 1)
  redis.call("HSET", job, "returnvalue", a.text)
  keep_or_delete(call, q.completed, a)
  emit(q, "completed", "jobId", a.id, "returnvalue", a.text, "prev", "active")
  count_attempt(call.stats, a, "completed")
  count_minute(call, "completed")
end

function ends.failed(call, a)
  local q, job = call.q, call.q.job(a.id)
  leave_relations(call, a, function(_, child_key, parent_key, parent)
    child_failed(call, child_key, parent_key, parent or "", a.text)
  end)
  -- What never started has made no attempt.
  local made = redis.call("HINCRBY", job, "atm", a.unstarted and 0 or 1)
  set_failure(job, a)
  redis.call("HDEL", job, "defa")
  keep_or_delete(call, q.failed, a)
  emit(q, "failed", "jobId", a.id, "failedReason", a.text, "prev", "active")
  if made >= a.attempts then
    emit(q, "retries-exhausted", "jobId", a.id, "attemptsMade", made)
  end
  if not a.unstarted then count_attempt(call.stats, a, "failed") end
  count(call.stats, "dead:" .. a.reason .. ":" .. counted_name(call.stats, a.name), 1)
  count_minute(call, "failed")
end

function ends.retried(call, a)
  local job = call.q.job(a.id)
  redis.call("HINCRBY", job, "atm", 1)
  if a.delay_ms > 0 then
    local due_ms = call.now_ms + a.delay_ms
    set_failure(job, a, "delay", a.delay_ms, "tb:rdy", due_ms)
    make_delayed(call, a.id, due_ms)
  else
    set_failure(job, a, "tb:rdy", call.now_ms)
    make_wait(call, a.id, priority_of(job), a.lifo)
    emit(call.q, "waiting", "jobId", a.id, "prev", "active")
  end
  count_attempt(call.stats, a, "retried")
end

-- Run again later, at its own wish: no attempt is spent.
function ends.postponed(call, a)
  local due_ms = call.now_ms + a.delay_ms
  redis.call("HSET", call.q.job(a.id), "delay", a.delay_ms, "tb:rdy", due_ms)
  make_delayed(call, a.id, due_ms)
end

-- Given back unfinished: no attempt is spent; a start that never was is not counted. With a delay,
-- no job of the queue starts until it is over.
function ends.handed_back(call, a)
  local q, job = call.q, call.q.job(a.id)
  if a.delay_ms > 0 then redis.call("SET", q.limiter, "9007199254740991", "PX", a.delay_ms) end
  if not a.started then redis.call("HINCRBY", job, "ats", -1) end
  redis.call("HSET", job, "tb:rdy", call.now_ms)
  push_to_front(q, call.meta, a.id, priority_of(job))
  emit(q, "waiting", "jobId", a.id, "prev", "active")
  call.pushed = true
end

-- A parent that waits for children it has added while it ran; with none pending it goes on at once.
function ends.waiting_children(call, a)
  local q, job = call.q, call.q.job(a.id)
  redis.call("ZADD", q["waiting-children"], call.now_ms, a.id)
  emit(q, "waiting-children", "jobId", a.id, "prev", "active")
  -- By its id, which may hold colons: a schedule's job does.
  if redis.call("SCARD", job .. ":dependencies") == 0 then release_job(call, a.id) end
end

-- Whether a job may end in this way while it has children that are not done, or failed.
local function children_forbid(job, outcome)
  if outcome ~= "completed" and outcome ~= "waiting_children" then return nil end
  if redis.call("EXISTS", job .. ":dependencies", job .. ":unsuccessful") == 0 then return nil end
  if redis.call("ZCARD", job .. ":unsuccessful") > 0 then return CHILDREN_FAILED end
  if outcome == "completed" then return CHILDREN_PENDING end
  return nil
end

-- End one attempt, if its token still holds the lock. All refusals come before the first write.
local function finish_attempt(call, a)
  local q, job = call.q, call.q.job(a.id)
  local holds = redis.call("GET", job .. ":lock") == a.token
  if redis.call("EXISTS", job) == 0 then
    if holds then
      redis.call("DEL", job .. ":lock")
      redis.call("LREM", q.active, -1, a.id)
      call.left[#call.left + 1] = a.id
    end
    count(call.stats, "vanished", 1)
    return VANISHED
  end
  if not holds then return LOCK_LOST end
  local refused = children_forbid(job, a.outcome)
  if refused then return refused end
  call.left[#call.left + 1] = a.id
  redis.call("DEL", job .. ":lock")
  if leave_active(call, a.id) == 0 then return NOT_ACTIVE end
  ends[a.outcome](call, a)
  return DONE
end

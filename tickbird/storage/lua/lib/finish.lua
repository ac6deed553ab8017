-- @include lib/events
-- @include lib/push
-- @include lib/stats
-- @include lib/remove
-- The end of an attempt. Every way out of `active` goes through finish_attempt.

local DONE, LOCK_LOST, NOT_ACTIVE, VANISHED = 0, 1, 2, 3

-- Removing from a list is linear: long runners sit at the right end of `active`, the newest at
-- the left. Says which end to search from, by the start of the job in the middle.
local function search_end(q)
  local length = redis.call("LLEN", q.active)
  if length <= 256 then return nil end
  local middle = redis.call("LINDEX", q.active, math.floor(length / 2))
  return tonumber(redis.call("HGET", q.job(middle), "processedOn"))
end

local function leave_active(q, call, id)
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
local function keep_or_delete(q, call, set, a)
  call.finished = true
  if a.keep_count == 0 then
    delete_jobs(q, { a.id })
    return
  end
  redis.call("ZADD", set, call.now_ms, a.id)
  redis.call("HSET", q.job(a.id), "finishedOn", call.now_ms)
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

local ends = {}

function ends.completed(q, call, a)
  local job = q.job(a.id)
  redis.call("HINCRBY", job, "atm", 1)
  redis.call("HSET", job, "returnvalue", a.text)
  keep_or_delete(q, call, q.completed, a)
  emit(q, "completed", "jobId", a.id, "returnvalue", a.text, "prev", "active")
  count_attempt(call.stats, a, "completed")
end

function ends.failed(q, call, a)
  local job = q.job(a.id)
  local made = redis.call("HINCRBY", job, "atm", 1)
  set_failure(job, a)
  redis.call("HDEL", job, "defa")
  keep_or_delete(q, call, q.failed, a)
  emit(q, "failed", "jobId", a.id, "failedReason", a.text, "prev", "active")
  if made >= a.attempts then
    emit(q, "retries-exhausted", "jobId", a.id, "attemptsMade", made)
  end
  count_attempt(call.stats, a, "failed")
  count(call.stats, "dead:" .. a.reason .. ":" .. counted_name(call.stats, a.name), 1)
end

function ends.retried(q, call, a)
  local job = q.job(a.id)
  redis.call("HINCRBY", job, "atm", 1)
  if a.delay_ms > 0 then
    local due_ms = call.now_ms + a.delay_ms
    set_failure(job, a, "delay", a.delay_ms, "tb:rdy", due_ms)
    push_delayed(q, a.id, due_ms)
    emit(q, "delayed", "jobId", a.id, "delay", due_ms)
    call.delayed = true
  else
    set_failure(job, a, "tb:rdy", call.now_ms)
    local priority = priority_of(job)
    push_by_priority(q, call.meta, a.id, priority, a.lifo)
    emit(q, "waiting", "jobId", a.id, "prev", "active")
    call.pushed = true
  end
  count_attempt(call.stats, a, "retried")
end

-- Given back unfinished (shutdown): no attempt is spent; a start that never was is not counted.
function ends.handed_back(q, call, a)
  local job = q.job(a.id)
  if not a.started then redis.call("HINCRBY", job, "ats", -1) end
  redis.call("HSET", job, "tb:rdy", call.now_ms)
  local priority = priority_of(job)
  push_to_front(q, call.meta, a.id, priority)
  emit(q, "waiting", "jobId", a.id, "prev", "active")
  call.pushed = true
end

-- End one attempt, if its token still holds the lock. All refusals come before the first write.
local function finish_attempt(q, call, a)
  local job = q.job(a.id)
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
  call.left[#call.left + 1] = a.id
  redis.call("DEL", job .. ":lock")
  if leave_active(q, call, a.id) == 0 then return NOT_ACTIVE end
  ends[a.outcome](q, call, a)
  return DONE
end

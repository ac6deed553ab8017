-- @include lib/events
-- @include lib/push
-- @include lib/stats
-- Take jobs from a queue: pop, lock and start mark in one step.

local MAX_PER_CALL = 1000
local MAX_BYTES_PER_CALL = 4 * 1024 * 1024

-- Move what is due from delayed to where it waits. Happens on every take, also while paused.
local function promote_due(q, meta, now_ms)
  local due = redis.call("ZRANGE", q.delayed, "-inf", (now_ms + 1) * 4096 - 1, "BYSCORE",
    "LIMIT", 0, MAX_PER_CALL, "WITHSCORES")
  for i = 1, #due, 2 do
    local id, due_ms = due[i], math.floor(tonumber(due[i + 1]) / 4096)
    local job = q.job(id)
    redis.call("ZREM", q.delayed, id)
    local known = redis.call("HMGET", job, "priority", "name")
    push_by_priority(q, meta, id, tonumber(known[1]) or 0, false)
    -- An id without a hash stays without one: the take drops it.
    if known[2] then
      redis.call("HSET", job, "delay", 0, "tb:rdy", due_ms)
    end
    emit(q, "waiting", "jobId", id, "prev", "delayed")
  end
  if #due > 0 then mark_work_unless_held(q, meta) end
end

-- How many jobs the queue's own limits allow now, and the milliseconds until more are.
local function allowance(q, meta, wanted)
  local n = math.min(wanted, MAX_PER_CALL)
  if meta.concurrency then n = math.min(n, meta.concurrency - redis.call("LLEN", q.active)) end
  if meta.paused then return 0, 0 end
  if not meta.max then return n, 0 end
  local taken = tonumber(redis.call("GET", q.limiter)) or 0
  local ttl_ms = redis.call("PTTL", q.limiter)
  -- A counter without an end would leave the limit off for other clients: give it one.
  if ttl_ms == -1 then
    redis.call("PEXPIRE", q.limiter, meta.duration)
    ttl_ms = meta.duration
  end
  if taken >= meta.max and ttl_ms > 0 then return 0, ttl_ms end
  return math.min(n, meta.max - taken), 0
end

local function count_against_limit(q, meta, started)
  if not meta.max or started == 0 then return end
  local total = redis.call("INCRBY", q.limiter, started)
  if total == started then redis.call("PEXPIRE", q.limiter, meta.duration) end
end

-- The next id, moved to `active`; nil when nothing waits.
local function pop_next(q)
  local id = redis.call("RPOPLPUSH", q.wait, q.active)
  -- Markers of very old clients stand among the ids.
  while id and string.sub(id, 1, 2) == "0:" do
    redis.call("LREM", q.active, 1, id)
    id = redis.call("RPOPLPUSH", q.wait, q.active)
  end
  if id then return id end
  id = redis.call("ZPOPMIN", q.prioritized)[1]
  if id then redis.call("LPUSH", q.active, id) end
  return id
end

-- name, stalls, defa and size of a hash as HGETALL gives it; nil when it is no job.
local function look_at(fields)
  if fields.err then return nil end
  local seen = { stalls = 0, bytes = 0 }
  for i = 1, #fields, 2 do
    local field, value = fields[i], fields[i + 1]
    seen.bytes = seen.bytes + #field + #value
    if field == "name" then seen.name = value
    elseif field == "stc" then seen.stalls = tonumber(value) or 0
    elseif field == "defa" then seen.defa = value end
  end
  return seen.name and seen or nil
end

-- Jobs that were there at two deaths run apart: one at a time in a worker process, so that a
-- job that kills its worker takes no other along. A second one comes back a second later.
local function put_suspect_off(q, id, now_ms)
  redis.call("LREM", q.active, 1, id)
  redis.call("HSET", q.job(id), "delay", 1000)
  push_delayed(q, id, now_ms + 1000)
  emit(q, "delayed", "jobId", id, "delay", now_ms + 1000)
  mark_next_delay(q)
end

-- Take up to `wanted` jobs. `by` = { token, lock_ms, name, may_take_suspect }.
-- Returns { {id, hash as flat list}, ... } and the milliseconds until a rate limit ends.
local function take_jobs(q, meta, stats, wanted, by, now_ms)
  promote_due(q, meta, now_ms)
  local allowed, limited_ms = allowance(q, meta, wanted)
  local taken, deadlines, bytes, started, looked = {}, {}, 0, 0, 0
  while #taken < allowed and bytes < MAX_BYTES_PER_CALL and looked < MAX_PER_CALL do
    local id = pop_next(q)
    looked = looked + 1
    if not id then
      redis.call("DEL", q.pc)
      break
    end
    local job = q.job(id)
    local fields = redis.pcall("HGETALL", job)
    local seen = look_at(fields)
    if not seen then
      redis.call("LREM", q.active, 1, id)
      count(stats, "vanished", 1)
    elseif seen.stalls >= 2 and not seen.defa and not by.may_take_suspect then
      put_suspect_off(q, id, now_ms)
    else
      if seen.stalls >= 2 then by.may_take_suspect = false end
      redis.call("SET", job .. ":lock", by.token, "PX", by.lock_ms * 2)
      emit(q, "active", "jobId", id, "prev", "waiting")
      if by.name ~= "" then
        redis.call("HSET", job, "processedOn", now_ms, "pb", by.name)
      else
        redis.call("HSET", job, "processedOn", now_ms)
      end
      redis.call("HINCRBY", job, "ats", 1)
      if not seen.defa then started = started + 1 end
      bytes = bytes + seen.bytes
      taken[#taken + 1] = { id, fields }
      deadlines[#deadlines + 1] = now_ms + by.lock_ms
      deadlines[#deadlines + 1] = id
    end
  end
  if #taken > 0 then
    redis.call("ZADD", q.own("locks"), unpack(deadlines))
    count_against_limit(q, meta, started)
    mark_work(q)
  end
  return taken, limited_ms
end

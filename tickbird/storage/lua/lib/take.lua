-- @include lib/call
-- Take jobs from a queue: pop, lock and start mark in one step.

local MAX_PER_CALL = 1000
local MAX_BYTES_PER_CALL = 4 * 1024 * 1024

-- Move what is due from delayed to where it waits. Happens on every take, also while paused.
local function promote_due(call)
  local q = call.q
  local due = redis.call("ZRANGE", q.delayed, "-inf", (call.now_ms + 1) * 4096 - 1, "BYSCORE",
    "LIMIT", 0, MAX_PER_CALL, "WITHSCORES")
  for i = 1, #due, 2 do
    local id, due_ms = due[i], math.floor(tonumber(due[i + 1]) / 4096)
    local job = q.job(id)
    redis.call("ZREM", q.delayed, id)
    local known = redis.call("HMGET", job, "priority", "name")
    make_wait(call, id, tonumber(known[1]) or 0, false)
    -- An id without a hash stays without one: the take drops it.
    if known[2] then
      redis.call("HSET", job, "delay", 0, "tb:rdy", due_ms)
    end
    emit(q, "waiting", "jobId", id, "prev", "delayed")
  end
end

-- How many jobs the limits allow now, and the milliseconds until more are. The queue's own rate
-- limit comes before the worker's; who has neither does not look at the counter.
local function allowance(call, by, wanted)
  local q, meta = call.q, call.meta
  local n = math.min(wanted, MAX_PER_CALL)
  if meta.concurrency then n = math.min(n, meta.concurrency - redis.call("LLEN", q.active)) end
  if meta.paused then return 0, 0 end
  local max = meta.max or by.max
  if not max then return n, 0 end
  local taken = tonumber(redis.call("GET", q.limiter)) or 0
  local ttl_ms = redis.call("PTTL", q.limiter)
  -- A counter without an end would leave the limit off for other clients: give it one.
  if ttl_ms == -1 then
    ttl_ms = by.duration or meta.duration
    redis.call("PEXPIRE", q.limiter, ttl_ms)
  end
  if taken >= max and ttl_ms > 0 then return 0, ttl_ms end
  return math.min(n, max - taken), 0
end

local function count_against_limit(call, by, started)
  if not (call.meta.max or by.max) or started == 0 then return end
  local limiter = call.q.limiter
  local total = redis.call("INCRBY", limiter, started)
  if total == started then redis.call("PEXPIRE", limiter, by.duration or call.meta.duration) end
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

-- name, stalls, defa (and where it stands) and size of a hash as HGETALL gives it; nil when it is no job.
local function look_at(fields)
  if fields.err then return nil end
  local seen = { stalls = 0, bytes = 0 }
  for i = 1, #fields, 2 do
    local field, value = fields[i], fields[i + 1]
    seen.bytes = seen.bytes + #field + #value
    if field == "name" then seen.name = value
    elseif field == "stc" then seen.stalls = tonumber(value) or 0
    elseif field == "defa" then seen.defa, seen.defa_at = value, i end
  end
  return seen.name and seen or nil
end

-- Jobs that were there at two deaths run apart: one at a time in a worker process, so that a
-- job that kills its worker takes no other along. A second one comes back a second later.
local function put_suspect_off(call, id)
  redis.call("LREM", call.q.active, 1, id)
  redis.call("HSET", call.q.job(id), "delay", 1000)
  make_delayed(call, id, call.now_ms + 1000)
end

-- Other clients give a job up at its second stall. Within our own limit it runs all the same.
local function pardon(call, by, id, seen, fields)
  if seen.defa ~= "job stalled more than allowable limit" or not by.stall_limit
      or seen.stalls > by.stall_limit then
    return
  end
  redis.call("HDEL", call.q.job(id), "defa")
  table.remove(fields, seen.defa_at)
  table.remove(fields, seen.defa_at)
  seen.defa = nil
end

-- Take up to `wanted` jobs. `by` = { token, lock_ms, name, may_take_suspect, max, duration,
-- stall_limit }.
-- Returns { {id, hash as flat list}, ... } and the milliseconds until a rate limit ends.
local function take_jobs(call, wanted, by)
  local q, now_ms = call.q, call.now_ms
  promote_due(call)
  local allowed, limited_ms = allowance(call, by, wanted)
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
    if seen then pardon(call, by, id, seen, fields) end
    if not seen then
      redis.call("LREM", q.active, 1, id)
      count(call.stats, "vanished", 1)
    elseif seen.stalls >= 2 and not seen.defa and not by.may_take_suspect then
      put_suspect_off(call, id)
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
    count_against_limit(call, by, started)
    mark_work(q)
  end
  return taken, limited_ms
end

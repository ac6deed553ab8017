-- @include lib/call
-- @include lib/remove
-- Deduplication: `de:<id>` names the job that owns a dedup id. `job.dedup` = { id, ttl_ms or 0,
-- extend, replace, keep_last, reschedule }.

local function set_owner(key, id, ttl_ms)
  if ttl_ms > 0 then
    redis.call("SET", key, id, "PX", ttl_ms)
  else
    redis.call("SET", key, id)
  end
end

local function tell_deduplicated(call, job, survivor, dropped)
  emit(call.q, "deduplicated", "jobId", survivor, "deduplicationId", job.dedup.id,
    "deduplicatedJobId", dropped)
end

-- Keep the newest proposal while the owner runs; it becomes a job when the owner ends.
local function keep_last(call, job, id, owner)
  local q, proposal_key = call.q, call.q["dn:" .. job.dedup.id]
  if not redis.call("LPOS", q.active, owner) then return false end
  redis.call("DEL", proposal_key)
  redis.call("HSET", proposal_key, "name", job.name, "data", job.data, "opts", job.opts, "jid", id)
  redis.call("PERSIST", q["de:" .. job.dedup.id])
  tell_deduplicated(call, job, owner, id)
  return true
end

-- A delayed owner gives way to the new job. Its parent, if it has become a child, waits no longer.
local function replace_delayed(call, job, id, owner, ttl_ms)
  local q, dedup = call.q, job.dedup
  if redis.call("ZREM", q.delayed, owner) == 0 then return false end
  local key = q["de:" .. dedup.id]
  leave_parent(call, owner, fields_of(q, owner, "parentKey")[1])
  delete_jobs(q, { owner })
  emit(q, "removed", "jobId", owner, "prev", "delayed")
  tell_deduplicated(call, job, id, owner)
  redis.call("DEL", q["dn:" .. dedup.id])
  if dedup.extend or redis.call("PTTL", key) == -1 then
    set_owner(key, id, ttl_ms)
  else
    redis.call("SET", key, id, "KEEPTTL")
  end
  call.delayed = true
  return true
end

-- A delayed owner gets the new job's due time.
local function reschedule_delayed(call, job, owner)
  local q = call.q
  if redis.call("ZREM", q.delayed, owner) == 0 then return end
  redis.call("HSET", q.job(owner), "delay", job.delay_ms)
  make_delayed(call, owner, call.now_ms + job.delay_ms)
end

-- The id of the job that owns the dedup id, which then stands for `job`; nil when `job` is now the
-- owner and is to be added.
local function deduplicate(call, job, id)
  local q, dedup = call.q, job.dedup
  local key = q["de:" .. dedup.id]
  -- Held for as long as a proposal may be kept, whatever the TTL.
  local ttl_ms = dedup.keep_last and 0 or dedup.ttl_ms
  local owner = redis.call("GET", key)
  if owner and redis.call("PTTL", key) == -1 and redis.call("EXISTS", q.job(owner)) == 0 then
    -- Its owner is gone and the key would never end.
    redis.call("DEL", key, q["dn:" .. dedup.id])
    owner = false
  end
  if not owner then
    set_owner(key, id, ttl_ms)
    return nil
  end
  if dedup.replace then
    if replace_delayed(call, job, id, owner, ttl_ms) then return nil end
    if dedup.keep_last then keep_last(call, job, id, owner) end
    return owner
  end
  if dedup.keep_last and keep_last(call, job, id, owner) then return owner end
  if dedup.extend and ttl_ms > 0 then redis.call("PEXPIRE", key, ttl_ms) end
  if dedup.reschedule then reschedule_delayed(call, job, owner) end
  tell_deduplicated(call, job, owner, id)
  return owner
end

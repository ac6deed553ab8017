-- @include lib/call
-- @include lib/dedup
-- @include lib/parents
-- Store a job and put it where it begins.

-- `job` = { id or "", name, data, opts, delay_ms, priority, lifo, timestamp_ms, parent_key, parent,
-- scheduler, dedup, has_children }. Values that do not apply are absent.

local function store_job(call, job, id)
  local fields = { "name", job.name, "data", job.data, "opts", job.opts,
    "timestamp", job.timestamp_ms, "delay", job.delay_ms, "priority", job.priority }
  local function also(field, value)
    if value then
      fields[#fields + 1] = field
      fields[#fields + 1] = value
    end
  end
  also("parentKey", job.parent_key)
  also("parent", job.parent)
  also("rjk", job.scheduler)
  also("deid", job.dedup and job.dedup.id)
  redis.call("HSET", call.q.job(id), unpack(fields))
  emit(call.q, "added", "jobId", id, "name", job.name)
  count(call.stats, "added:" .. counted_name(call.stats, job.name), 1)
end

local function place_job(call, job, id)
  if job.has_children then
    redis.call("ZADD", call.q["waiting-children"], job.timestamp_ms, id)
    emit(call.q, "waiting-children", "jobId", id)
  elseif job.delay_ms > 0 then
    make_delayed(call, id, job.timestamp_ms + job.delay_ms)
  else
    make_wait(call, id, job.priority, job.lifo)
    emit(call.q, "waiting", "jobId", id)
  end
end

-- An id that is taken: nothing is stored. Named as a child, the job that is there becomes one, if
-- it has no other living parent; what it has completed already counts as done.
local function meet_existing(call, job, id)
  local child_key = call.q.job(id)
  if job.parent_key then
    local other = redis.call("HGET", child_key, "parentKey")
    if other and other ~= job.parent_key and redis.call("EXISTS", other) == 1 then
      error({ err = "OTHER_PARENT job " .. id .. " is a child of " .. other })
    end
    local v = redis.call("HMGET", child_key, "returnvalue", "finishedOn")
    if v[1] and redis.call("ZSCORE", call.q.completed, id) then
      redis.call("HSET", job.parent_key .. ":processed", child_key, v[1])
    else
      redis.call("SADD", job.parent_key .. ":dependencies", child_key)
    end
    redis.call("HSET", child_key, "parentKey", job.parent_key, "parent", job.parent)
  end
  emit(call.q, "duplicated", "jobId", id)
end

-- Add one job. Returns its id and 1, or the id of the job that stands for it and 0.
local function add_job(call, job)
  local q = call.q
  if not job.timestamp_ms or job.timestamp_ms == 0 then job.timestamp_ms = call.now_ms end
  local counter = redis.call("INCR", q.id)
  local id = job.id ~= "" and job.id or string.format("%d", counter)
  if job.id ~= "" and redis.call("EXISTS", q.job(id)) == 1 then
    meet_existing(call, job, id)
    return id, 0
  end
  if job.dedup then
    local owner = deduplicate(call, job, id)
    if owner then return owner, 0 end
  end
  store_job(call, job, id)
  place_job(call, job, id)
  if job.parent_key then
    redis.call("SADD", job.parent_key .. ":dependencies", q.job(id))
  end
  return id, 1
end

-- At a job's end: its dedup key goes, and the last proposal kept meanwhile becomes a job.
local function release_dedup(call, dedup_id, id)
  local q = call.q
  local key, proposal_key = q["de:" .. dedup_id], q["dn:" .. dedup_id]
  if redis.call("PTTL", key) == -1 and redis.call("GET", key) == id then redis.call("DEL", key) end
  local v = redis.call("HMGET", proposal_key, "name", "data", "opts", "jid", "pk", "pd", "pdk", "rjk")
  if not v[1] then return end
  redis.call("DEL", proposal_key)
  local ok, opts = pcall(cjson.decode, v[3] or "{}")
  if not ok or type(opts) ~= "table" then opts = {} end
  redis.call("INCR", q.id)
  local new_id = v[4] or string.format("%d", redis.call("GET", q.id))
  if redis.call("EXISTS", q.job(new_id)) == 1 then
    -- Another add has taken the proposal's own id meanwhile: that job stands for it.
    emit(q, "duplicated", "jobId", new_id)
    return
  end
  redis.call("SET", key, new_id)
  local job = {
    name = v[1], data = v[2] or "{}", opts = v[3] or "{}", dedup = { id = dedup_id },
    delay_ms = tonumber(opts.delay) or 0, priority = tonumber(opts.priority) or 0,
    lifo = opts.lifo == true, timestamp_ms = call.now_ms,
    parent_key = v[5] or nil, parent = v[6] or nil, scheduler = v[8] or nil,
  }
  store_job(call, job, new_id)
  place_job(call, job, new_id)
  if job.parent_key and redis.call("EXISTS", job.parent_key) == 1 then
    redis.call("SADD", job.parent_key .. ":dependencies", q.job(new_id))
  end
end

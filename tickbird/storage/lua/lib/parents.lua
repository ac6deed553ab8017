-- @include lib/call
-- Parents wait for their children in `waiting-children`; `<parent>:dependencies` names those that
-- are not done. A relation is a full key, `<prefix>:<queue>:<id>`; the id is what follows the
-- last colon.

local function split_key(key)
  local prefix, id = string.match(key, "^(.*:)([^:]*)$")
  return prefix, id
end

-- Let a job of the call's own queue run that has waited for children.
local function release_job(parent, id)
  local q = parent.q
  local parent_key = q.job(id)
  if redis.call("EXISTS", parent_key) == 0 or redis.call("ZREM", q["waiting-children"], id) == 0 then
    return false
  end
  local v = redis.call("HMGET", parent_key, "priority", "delay")
  local priority, delay_ms = tonumber(v[1]) or 0, tonumber(v[2]) or 0
  if delay_ms > 0 then
    local due_ms = parent.now_ms + delay_ms
    redis.call("HSET", parent_key, "tb:rdy", due_ms)
    redis.call("ZADD", q.delayed, due_ms * 4096, id)
    emit(q, "delayed", "jobId", id, "delay", due_ms)
    parent.delayed = true
    return true
  end
  redis.call("HSET", parent_key, "tb:rdy", parent.now_ms)
  make_wait(parent, id, priority, true)
  emit(q, "waiting", "jobId", id, "prev", "waiting-children")
  return true
end

-- Let a parent run that has waited long enough. Nothing happens unless it exists and waits.
local function release_parent(call, parent_key)
  local prefix, id = split_key(parent_key)
  return release_job(call_for(call, prefix), id)
end

local function release_if_done(call, parent_key)
  if redis.call("SCARD", parent_key .. ":dependencies") == 0 then
    release_parent(call, parent_key)
  end
end

local function child_completed(call, child_key, parent_key, result)
  if redis.call("SREM", parent_key .. ":dependencies", child_key) == 0 then return end
  redis.call("HSET", parent_key .. ":processed", child_key, result)
  release_if_done(call, parent_key)
end

-- What the child's flag makes of its failure. No flag: the parent waits on, until the child is
-- replayed or removed.
local function child_failed(call, child_key, parent_key, parent_field, reason)
  local ok, parent = pcall(cjson.decode, parent_field)
  if not ok or type(parent) ~= "table" then return end
  if not (parent.fpof or parent.cpof or parent.idof or parent.rdof) then return end
  if redis.call("SREM", parent_key .. ":dependencies", child_key) == 0 then return end
  if parent.fpof then
    redis.call("ZADD", parent_key .. ":unsuccessful", call.now_ms, child_key)
    if redis.call("EXISTS", parent_key) == 0 then return end
    local prefix, id = split_key(parent_key)
    local q = call_for(call, prefix).q
    if redis.call("ZSCORE", q.failed, id) then return end
    redis.call("HSET", parent_key, "defa", "child " .. child_key .. " failed")
    if redis.call("ZREM", q.delayed, id) == 1 then
      redis.call("ZADD", q["waiting-children"], call.now_ms, id)
    end
    if redis.call("ZSCORE", q["waiting-children"], id) then
      redis.call("HSET", parent_key, "delay", 0)
      release_parent(call, parent_key)
    end
  elseif parent.cpof then
    redis.call("HSET", parent_key .. ":failed", child_key, reason)
    release_parent(call, parent_key)
  else
    if parent.idof then redis.call("HSET", parent_key .. ":failed", child_key, reason) end
    release_if_done(call, parent_key)
  end
end

-- A replayed child is pending again, if its parent still lives.
local function child_replayed(child_key, parent_key)
  if redis.call("EXISTS", parent_key) == 0 then return end
  local was = redis.call("ZREM", parent_key .. ":unsuccessful", child_key)
    + redis.call("HDEL", parent_key .. ":failed", child_key)
    + redis.call("HDEL", parent_key .. ":processed", child_key)
  if was > 0 then redis.call("SADD", parent_key .. ":dependencies", child_key) end
end

-- A removed child is pending no more, and leaves no trace with its parent.
local function child_removed(call, child_key, parent_key)
  redis.call("ZREM", parent_key .. ":unsuccessful", child_key)
  redis.call("HDEL", parent_key .. ":failed", child_key)
  redis.call("HDEL", parent_key .. ":processed", child_key)
  if redis.call("SREM", parent_key .. ":dependencies", child_key) == 1 then
    release_if_done(call, parent_key)
  end
end

-- @include lib/call
-- What becomes of a job whose worker has gone.

local function route_stalled(call, id, job, stalls, allowed_stalls)
  if stalls >= 2 and stalls <= allowed_stalls then
    -- A suspect: it was there at two deaths. Spread over time, so that suspects run apart.
    local delay_ms = math.random(1000, 1000 * 2 ^ stalls)
    redis.call("HSET", job, "delay", delay_ms, "tb:rdy", call.now_ms + delay_ms)
    make_delayed(call, id, call.now_ms + delay_ms)
    return
  end
  if stalls > allowed_stalls then
    -- The text BullMQ's workers know: whoever takes the job next fails it without running it.
    redis.call("HSET", job, "defa", "job stalled more than allowable limit")
  end
  redis.call("HSET", job, "tb:rdy", call.now_ms)
  redis.call("RPUSH", call.meta.wait_list, id)
  emit(call.q, "waiting", "jobId", id, "prev", "active")
end

-- Bring back a job that nobody runs any more. Says whether it was there to bring back.
local function bring_back(call, id, allowed_stalls)
  local q, job = call.q, call.q.job(id)
  if redis.call("LREM", q.active, -1, id) == 0 then return false end -- finished or removed
  call.pushed = true -- or, under a global concurrency, another job may start now
  redis.call("DEL", job .. ":lock")
  redis.call("SREM", q.stalled, id)
  if redis.call("EXISTS", job) == 0 then
    count(call.stats, "vanished", 1)
    return false
  end
  route_stalled(call, id, job, redis.call("HINCRBY", job, "stc", 1), allowed_stalls)
  emit(q, "stalled", "jobId", id)
  count(call.stats, "stalled", 1)
  return true
end

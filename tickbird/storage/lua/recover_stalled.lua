#!lua flags=allow-oom
-- Bring back jobs whose worker has gone: their deadline has passed and nobody renewed it.
--
-- KEYS   1 meta (for routing; the others are built from the prefix)
-- ARGV   1 prefix of the queue's keys   2 jobs to look at, at most   3 stalls allowed per job
--        4 seed for spreading suspects   5 now_ms, tests only
-- Reply  { ids brought back, 1 = there may be more }
-- Events "waiting" prev=active or "delayed", then "stalled"
-- @include lib/clock
-- @include lib/call
local q = open_queue(ARGV[1])
local limit, allowed_stalls = tonumber(ARGV[2]), tonumber(ARGV[3])
math.randomseed(tonumber(ARGV[4]))
local now_ms = clock_now(ARGV[5])
local locks = q.own("locks")

-- No lock lasts longer than ten minutes: a later deadline was written before the server's clock
-- stepped back, and would keep a dead job for as long as the step.
local LONGEST_LOCK_MS = 600000
for _, id in ipairs(redis.call("ZRANGE", locks, "(" .. string.format("%d", now_ms + LONGEST_LOCK_MS),
    "+inf", "BYSCORE", "LIMIT", 0, limit)) do
  redis.call("ZADD", locks, now_ms + LONGEST_LOCK_MS, id)
end

local expired = redis.call("ZRANGE", locks, "-inf", now_ms, "BYSCORE", "LIMIT", 0, limit)
if #expired == 0 then return { {}, 0 } end

local call = open_call(ARGV[1], now_ms)
local recovered = {}

local function route(id, job, stalls)
  if stalls >= 2 and stalls <= allowed_stalls then
    -- A suspect: it was there at two deaths. Spread over time, so that suspects run apart.
    local delay_ms = math.random(1000, 1000 * 2 ^ stalls)
    redis.call("HSET", job, "delay", delay_ms, "tb:rdy", now_ms + delay_ms)
    make_delayed(call, id, now_ms + delay_ms)
    return
  end
  if stalls > allowed_stalls then
    -- The text BullMQ's workers know: whoever takes the job next fails it without running it.
    redis.call("HSET", job, "defa", "job stalled more than allowable limit")
  end
  redis.call("HSET", job, "tb:rdy", now_ms)
  redis.call("RPUSH", call.meta.wait_list, id)
  emit(q, "waiting", "jobId", id, "prev", "active")
  call.pushed = true
end

local function recover(id)
  local job = q.job(id)
  local lock = redis.call("GET", job .. ":lock")
  if lock and string.sub(lock, 1, 3) ~= "tb:" then return end -- another client's by now
  if redis.call("LREM", q.active, -1, id) == 0 then return end -- finished or removed
  redis.call("DEL", job .. ":lock")
  redis.call("SREM", q.stalled, id)
  if redis.call("EXISTS", job) == 0 then
    count(call.stats, "vanished", 1)
    return
  end
  route(id, job, redis.call("HINCRBY", job, "stc", 1))
  emit(q, "stalled", "jobId", id)
  count(call.stats, "stalled", 1)
  recovered[#recovered + 1] = id
end

for _, id in ipairs(expired) do
  recover(id)
  redis.call("ZREM", locks, id)
end
close_call(call)
return { recovered, #expired == limit and 1 or 0 }

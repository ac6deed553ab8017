#!lua flags=allow-oom
-- Cancel a job: one that has not started fails at once; one that runs is left to its worker, which
-- looks here each second.
--
-- KEYS   1 meta (for routing; the others are built from the prefix)
-- ARGV   1 prefix of the queue's keys   2 job id   3 reason   4 stacktrace JSON or ""
--        5 now_ms, tests only
-- Reply  1 = cancelled, 2 = its worker was asked, 0 = finished, gone, another client's, or the run
--        a schedule waits for
-- Events as a final failure has them
-- @include lib/clock
-- @include lib/finish
local call = open_call(ARGV[1], clock_now(ARGV[5]))
local q, id, reason = call.q, ARGV[2], ARGV[3]
local job = q.job(id)
call.trims, call.left = {}, {}
local name = redis.call("HGET", job, "name")
if not name then return 0 end

local lock = redis.call("GET", job .. ":lock")
if lock then
  if string.sub(lock, 1, 3) ~= "tb:" then return 0 end
  redis.call("HSET", q.own("cancel"), id, lock .. "|" .. reason)
  redis.call("EXPIRE", q.own("cancel"), 3600)
  return 2
end
-- The run a schedule waits for goes with its schedule: cancelled alone, it would end it unsaid.
if is_next_iteration(q, id) then return 0 end
local waited = redis.call("ZREM", q.prioritized, id) + redis.call("ZREM", q.delayed, id)
  + redis.call("ZREM", q["waiting-children"], id)
if waited == 0 then waited = redis.call("LREM", q.wait, -1, id) + redis.call("LREM", q.paused, -1, id) end
if waited == 0 then return 0 end
ends.failed(call, {
  id = id, text = reason, stacktrace = ARGV[4], name = name, reason = "cancelled",
  keep_count = -1, keep_age_s = 0, keep_limit = 0, attempts = math.huge, unstarted = true,
})
close_call(call)
return 1

#!lua flags=allow-oom
-- Renew the locks of running jobs, and of jobs whose take was sent and not yet answered.
--
-- KEYS   1 meta (for routing)
-- ARGV   1 prefix of the queue's keys   2 lock_ms   3 msgpack: pairs { id, token }
--        4 msgpack: unanswered calls { memo key, sequence number, token }   5 now_ms, tests only
-- Reply  ids (of the pairs) whose lock is not the caller's any more
-- @include lib/clock
-- @include lib/queue
-- @include lib/lane
local q = open_queue(ARGV[1])
local lock_ms = tonumber(ARGV[2])
local now_ms = clock_now(ARGV[5])
local lost, deadlines, renewed = {}, {}, {}

-- A missing lock is never made anew: the job may be another worker's already.
local function renew(id, token)
  local lock = q.job(id) .. ":lock"
  if redis.call("GET", lock) ~= token then return false end
  redis.call("SET", lock, token, "PX", lock_ms * 2)
  deadlines[#deadlines + 1] = now_ms + lock_ms
  deadlines[#deadlines + 1] = id
  renewed[#renewed + 1] = id
  return true
end

for _, pair in ipairs(cmsgpack.unpack(ARGV[3])) do
  if not renew(pair[1], pair[2]) then lost[#lost + 1] = pair[1] end
end
for _, unanswered in ipairs(cmsgpack.unpack(ARGV[4])) do
  -- A newer call of the lane means that this one was answered after all.
  local ok, answer = pcall(recall, unanswered[1], unanswered[2])
  for _, id in ipairs(ok and answer and answer[2] or {}) do renew(id, unanswered[3]) end
end
if #renewed > 0 then
  redis.call("ZADD", q.own("locks"), unpack(deadlines))
  redis.call("SREM", q.stalled, unpack(renewed))
end
return lost

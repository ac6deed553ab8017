#!lua flags=allow-oom
-- Bring back jobs whose worker has gone: their deadline has passed and nobody renewed it.
--
-- KEYS   1 meta (for routing; the others are built from the prefix)
-- ARGV   1 prefix of the queue's keys   2 jobs to look at, at most   3 stalls allowed per job
--        4 seed for spreading suspects   5 now_ms, tests only
-- Reply  { ids brought back, 1 = there may be more }
-- Events "waiting" prev=active or "delayed", then "stalled"
-- @include lib/clock
-- @include lib/stall
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
for _, id in ipairs(expired) do
  local lock = redis.call("GET", q.job(id) .. ":lock")
  local is_ours = not lock or string.sub(lock, 1, 3) == "tb:" -- else another client's by now
  if is_ours and bring_back(call, id, allowed_stalls) then recovered[#recovered + 1] = id end
  redis.call("ZREM", locks, id)
end
close_call(call)
return { recovered, #expired == limit and 1 or 0 }

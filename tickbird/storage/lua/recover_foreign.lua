#!lua flags=allow-oom
-- Bring back jobs that other clients' workers have left, and keep their stall checks off: they
-- stand down while `stalled-check` exists, and would fail at its second stall what we allow more.
--
-- Such jobs have no deadline of ours. One that is active without a lock is marked in `stalled`;
-- one that is still so at the next look, a check later, is dead.
--
-- KEYS   1 meta (for routing; the others are built from the prefix)
-- ARGV   1 prefix of the queue's keys   2 active jobs looked at already, -1 = a new look
--        3 active jobs to look at, at most   4 stalls allowed per job   5 seed for spreading
--        suspects   6 ms between two looks, over all workers   7 ms that other clients stand down
--        8 now_ms, tests only
-- Reply  { ids brought back, active jobs looked at so far or -1 = that was all }
-- Events "waiting" prev=active or "delayed", then "stalled"
-- @include lib/clock
-- @include lib/stall
local q = open_queue(ARGV[1])
local looked, limit, allowed_stalls = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
math.randomseed(tonumber(ARGV[5]))
local now_ms = clock_now(ARGV[8])

local is_new = looked < 0
if is_new then
  looked = 0
  local last_ms = tonumber(redis.call("GET", q["stalled-check"])) or 0
  if last_ms <= now_ms and now_ms - last_ms < tonumber(ARGV[6]) then
    redis.call("PEXPIRE", q["stalled-check"], ARGV[7])
    return { {}, -1 }
  end
  redis.call("SET", q["stalled-check"], now_ms, "PX", ARGV[7])
end
if redis.call("LLEN", q.active) <= redis.call("ZCARD", q.own("locks")) then
  -- All that run are ours.
  if is_new then redis.call("UNLINK", q.stalled) end
  return { {}, -1 }
end

-- From the right, where the oldest are: what is taken meanwhile moves none of them.
local ids = redis.call("LRANGE", q.active, -looked - limit, -looked - 1)
if #ids == 0 then return { {}, -1 } end
local lock_keys = {}
for i, id in ipairs(ids) do lock_keys[i] = q.job(id) .. ":lock" end
local held = redis.call("MGET", unpack(lock_keys))
local deadlines = redis.call("ZMSCORE", q.own("locks"), unpack(ids))
local marked = redis.call("SMISMEMBER", q.stalled, unpack(ids))

local call = open_call(ARGV[1], now_ms)
local recovered = {}
for i = #ids, 1, -1 do
  if not held[i] and not deadlines[i] then
    if marked[i] == 0 then
      redis.call("SADD", q.stalled, ids[i])
    elseif bring_back(call, ids[i], allowed_stalls) then
      recovered[#recovered + 1] = ids[i]
    end
  end
end
close_call(call)
return { recovered, #ids == limit and looked + #ids - #recovered or -1 }

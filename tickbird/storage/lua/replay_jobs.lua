#!lua flags=allow-oom
-- Put finished jobs back into their queue: stalls and outcome are cleared, on request the attempts,
-- too; the stack traces stay as the history of earlier attempts.
--
-- KEYS   1 meta (for routing; the others are built from the prefix)
-- ARGV   1 prefix of the queue's keys   2 memo key of the lane   3 sequence number
--        4 set they are in: failed | completed   5 msgpack: ids   6 1 = attempts begin anew
--        7 ms; a job that became ready later stays, or ""   8 now_ms, tests only
-- Reply  per id 1 = back in the queue, 0 = was not in that set (replayed already, or removed),
--        2 = stays
-- Event  "waiting" prev=failed|completed, for each job
-- @include lib/clock
-- @include lib/lane
-- @include lib/remove
local memo_key, seq, from = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local answered = recall(memo_key, seq)
if answered then return answered end

local call = open_call(ARGV[1], clock_now(ARGV[8]))
local q = call.q
local ready_before_ms = tonumber(ARGV[7])
local answer, replayed = {}, 0

local function replay(id)
  local job = q.job(id)
  local v = fields_of(q, id, "name", "parentKey", "tb:rdy")
  if ready_before_ms and (tonumber(v[3]) or 0) > ready_before_ms then return 2 end
  if redis.call("ZREM", q.prefix .. from, id) == 0 then return 0 end
  if not v[1] then
    count(call.stats, "vanished", 1)
    return 0
  end
  redis.call("HDEL", job, "finishedOn", "processedOn", "failedReason", "returnvalue", "defa", "stc")
  if ARGV[6] == "1" then redis.call("HDEL", job, "atm", "ats") end
  redis.call("HINCRBY", job, "tb:gen", 1)
  redis.call("HSET", job, "tb:rdy", call.now_ms)
  if v[2] then child_replayed(job, v[2]) end
  make_wait(call, id, priority_of(job), false)
  emit(q, "waiting", "jobId", id, "prev", from)
  replayed = replayed + 1
  return 1
end

for i, id in ipairs(cmsgpack.unpack(ARGV[5])) do answer[i] = replay(id) end
if replayed > 0 then
  count(call.stats, "replayed:" .. from, replayed)
end
close_call(call)
remember(memo_key, seq, answer)
return answer

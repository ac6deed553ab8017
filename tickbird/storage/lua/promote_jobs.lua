#!lua flags=allow-oom
-- Let delayed jobs run now, each in its place by priority.
--
-- KEYS   1 meta (for routing; the others are built from the prefix)
-- ARGV   1 prefix of the queue's keys   2 memo key of the lane   3 sequence number
--        4 msgpack: ids   5 ms; a job that was started later stays, or ""   6 now_ms, tests only
-- Reply  per id 1 = waits now, 0 = was not delayed, 2 = stays
-- Event  "waiting" prev=delayed, for each job
-- @include lib/clock
-- @include lib/lane
-- @include lib/remove
local memo_key, seq = ARGV[2], tonumber(ARGV[3])
local answered = recall(memo_key, seq)
if answered then return answered end

local call = open_call(ARGV[1], clock_now(ARGV[6]))
local q = call.q
local started_before_ms = tonumber(ARGV[5])

local function promote(id)
  if not redis.call("ZSCORE", q.delayed, id) then return 0 end
  local v = fields_of(q, id, "name", "priority", "processedOn")
  if started_before_ms and (tonumber(v[3]) or 0) > started_before_ms then return 2 end
  redis.call("ZREM", q.delayed, id)
  if not v[1] then
    count(call.stats, "vanished", 1)
    return 0
  end
  redis.call("HSET", q.job(id), "delay", 0, "tb:rdy", call.now_ms)
  make_wait(call, id, tonumber(v[2]) or 0, false)
  emit(q, "waiting", "jobId", id, "prev", "delayed")
  return 1
end

local answer = {}
for i, id in ipairs(cmsgpack.unpack(ARGV[4])) do answer[i] = promote(id) end
close_call(call)
remember(memo_key, seq, answer)
return answer

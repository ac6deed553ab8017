#!lua flags=allow-oom
-- Give a delayed job another due time, counted from now.
--
-- KEYS   1 meta (for routing; the others are built from the prefix)
-- ARGV   1 prefix of the queue's keys   2 memo key of the lane   3 sequence number
--        4 id   5 delay_ms   6 now_ms, tests only
-- Reply  1 = changed, 0 = was not delayed
-- Event  "delayed"
-- @include lib/clock
-- @include lib/lane
-- @include lib/call
local memo_key, seq, id, delay_ms = ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local answered = recall(memo_key, seq)
if answered then return answered end

local call = open_call(ARGV[1], clock_now(ARGV[6]))
local q = call.q
local answer = 0
if redis.call("EXISTS", q.job(id)) == 1 and redis.call("ZREM", q.delayed, id) == 1 then
  -- The wait counts from the new due time, whatever the job was added with.
  redis.call("HSET", q.job(id), "delay", delay_ms, "tb:rdy", call.now_ms + delay_ms)
  make_delayed(call, id, call.now_ms + delay_ms)
  answer = 1
end
close_call(call)
remember(memo_key, seq, answer)
return answer

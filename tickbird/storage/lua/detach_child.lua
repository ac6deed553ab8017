#!lua flags=allow-oom
-- Part a child from its parent, which then waits for it no longer.
--
-- KEYS   1 meta of the child's queue (for routing)
-- ARGV   1 prefix of the child's queue   2 memo key of the lane   3 sequence number   4 child's id
--        5 now_ms, tests only
-- Reply  1 = parted, 0 = it has no parent
-- Event  "waiting" or "delayed" on the parent's queue, when it may run now
-- @include lib/clock
-- @include lib/lane
-- @include lib/parents
local memo_key, seq = ARGV[2], tonumber(ARGV[3])
local answered = recall(memo_key, seq)
if answered then return answered end

local call = open_call(ARGV[1], clock_now(ARGV[5]))
local child_key = call.q.job(ARGV[4])
local parent_key = redis.call("HGET", child_key, "parentKey")
local answer = 0
if parent_key then
  redis.call("HDEL", child_key, "parentKey", "parent")
  child_removed(call, child_key, parent_key)
  answer = 1
end
close_call(call)
remember(memo_key, seq, answer)
return answer

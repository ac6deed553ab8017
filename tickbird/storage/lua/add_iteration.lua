#!lua flags=allow-oom
-- Add the next iteration of a schedule, for the worker that has taken the present one.
--
-- KEYS   1 meta (for routing; the others are built from the prefix)
-- ARGV   1 prefix of the queue's keys   2 memo key of the lane   3 sequence number
--        4 schedule id   5 due time of the iteration taken   6 due time of the next
--        7 msgpack: the job, as lib/add takes it   8 now_ms, tests only
-- Reply  1 = added, 0 = the schedule has moved on, or is gone
-- Events as adding a job has them; "duplicated" when the iteration is there already
-- @include lib/clock
-- @include lib/lane
-- @include lib/add
local memo_key, seq, id = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local answered = recall(memo_key, seq)
if answered then return answered end

local call = open_call(ARGV[1], clock_now(ARGV[8]))
local q = call.q
local job = cmsgpack.unpack(ARGV[7])
local answer = 0
-- Only the pending iteration goes on: one that was replaced, or taken twice, must not fork.
if tonumber(redis.call("ZSCORE", q["repeat"], id)) == tonumber(ARGV[5]) then
  if redis.call("EXISTS", q.job(job.id)) == 1 then
    emit(q, "duplicated", "jobId", job.id)
  else
    local record = q["repeat:" .. id]
    redis.call("ZADD", q["repeat"], tonumber(ARGV[6]), id)
    -- A record of the older generation has no data of its own until its first run.
    if redis.call("HEXISTS", record, "ic") == 0 then redis.call("HSETNX", record, "data", job.data) end
    redis.call("HINCRBY", record, "ic", 1)
    add_job(call, job)
    answer = 1
  end
end
close_call(call)
remember(memo_key, seq, answer)
return answer

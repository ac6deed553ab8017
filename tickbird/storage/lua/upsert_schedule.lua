#!lua
-- Make or change a schedule: its record, and the job of its next iteration. The iteration that
-- was pending goes.
--
-- KEYS   1 meta (for routing; the others are built from the prefix)
-- ARGV   1 prefix of the queue's keys   2 memo key of the lane   3 sequence number
--        4 schedule id   5 due time of the pending iteration as the caller knows it, or ""
--        6 due time of the next   7 msgpack: the record as a flat list, without `ic`
--        8 msgpack: the job, as lib/add takes it   9 now_ms, tests only
-- Reply  1 = done, 0 = changed meanwhile: look again, -1 = that iteration is there already
-- Events as adding a job has them
-- @include lib/clock
-- @include lib/lane
-- @include lib/add
-- @include lib/remove
local memo_key, seq, id = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local answered = recall(memo_key, seq)
if answered then return answered end

local call = open_call(ARGV[1], clock_now(ARGV[9]))
local q = call.q
local due_ms, record_key = tonumber(ARGV[6]), q["repeat:" .. id]
local known = redis.call("ZSCORE", q["repeat"], id)
local pending_due = known and string.format("%d", tonumber(known)) or ""
if pending_due ~= ARGV[5] then
  remember(memo_key, seq, 0)
  return 0
end

local pending_id = "repeat:" .. id .. ":" .. pending_due
local job = cmsgpack.unpack(ARGV[8])
local gone = pending_due ~= "" and (redis.call("ZSCORE", q.delayed, pending_id)
  or redis.call("ZSCORE", q.prioritized, pending_id)
  or redis.call("LPOS", q.wait, pending_id) or redis.call("LPOS", q.paused, pending_id))
if redis.call("EXISTS", q.job(job.id)) == 1 and not (gone and job.id == pending_id) then
  remember(memo_key, seq, -1)
  return -1
end

if gone then
  redis.call("ZREM", q.delayed, pending_id)
  redis.call("ZREM", q.prioritized, pending_id)
  redis.call("LREM", q.wait, -1, pending_id)
  redis.call("LREM", q.paused, -1, pending_id)
  delete_jobs(q, { pending_id })
  call.delayed = true
end
local iterations = redis.call("HGET", record_key, "ic") or 1
redis.call("ZADD", q["repeat"], due_ms, id)
redis.call("DEL", record_key)
redis.call("HSET", record_key, "ic", iterations, unpack(cmsgpack.unpack(ARGV[7])))
add_job(call, job)
close_call(call)
remember(memo_key, seq, 1)
return 1

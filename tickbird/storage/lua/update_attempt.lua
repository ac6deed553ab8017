#!lua flags=allow-oom
-- What a running attempt writes of its job, if it still holds the lock: progress, log lines, data.
--
-- KEYS   1 meta (for routing; the others are built from the prefix)
-- ARGV   1 prefix of the queue's keys   2 memo key of the lane   3 sequence number   4 job id
--        5 token   6 what = progress | log | data   7 msgpack: values (log: lines; else one JSON
--          text)   8 log lines to keep, newest; -1 = all
-- Reply  1
-- Errors LOCK_LOST: nothing is written
-- Event  "progress"
-- @include lib/lane
-- @include lib/call
local memo_key, seq = ARGV[2], tonumber(ARGV[3])
local answered = recall(memo_key, seq)
if answered then return answered end

local q = open_queue(ARGV[1])
local id, token, what, keep = ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[8])
local job = q.job(id)
if redis.call("GET", job .. ":lock") ~= token or redis.call("EXISTS", job) == 0 then
  return redis.error_reply("LOCK_LOST another worker may own job " .. id)
end
local values = cmsgpack.unpack(ARGV[7])
if what == "log" then
  for _, line in ipairs(values) do redis.call("RPUSH", job .. ":logs", line) end
  if keep == 0 then
    redis.call("DEL", job .. ":logs")
  elseif keep > 0 then
    redis.call("LTRIM", job .. ":logs", -keep, -1)
  end
else
  redis.call("HSET", job, what, values[1])
  if what == "progress" then
    emit(q, "progress", "jobId", id, "data", values[1])
    trim_events(q, read_meta(q))
  end
end
remember(memo_key, seq, 1)
return 1

#!lua flags=allow-oom
-- End a schedule: its record goes, and its next iteration where that is delayed.
--
-- KEYS   1 meta (for routing; the others are built from the prefix)
-- ARGV   1 prefix of the queue's keys   2 memo key of the lane   3 sequence number   4 schedule id
-- Reply  1 = removed, 0 = there was none
-- Event  "removed" prev=delayed, for the iteration
-- @include lib/lane
-- @include lib/events
-- @include lib/push
-- @include lib/remove
local memo_key, seq = ARGV[2], tonumber(ARGV[3])
local answered = recall(memo_key, seq)
if answered then return answered end

local q, id = open_queue(ARGV[1]), ARGV[4]
local due = redis.call("ZSCORE", q["repeat"], id)
if due then
  local pending_id = "repeat:" .. id .. ":" .. string.format("%d", tonumber(due))
  if redis.call("ZREM", q.delayed, pending_id) == 1 then
    delete_jobs(q, { pending_id })
    emit(q, "removed", "jobId", pending_id, "prev", "delayed")
    mark_next_delay(q)
  end
end
local removed = math.max(redis.call("ZREM", q["repeat"], id), redis.call("DEL", q["repeat:" .. id]))
remember(memo_key, seq, removed)
return removed

#!lua flags=allow-oom
-- Remove jobs from whatever state they are in, each with all that belongs to it.
--
-- KEYS   1 meta (for routing; the others are built from the prefix)
-- ARGV   1 prefix of the queue's keys   2 memo key of the lane   3 sequence number
--        4 msgpack: ids   5 1 = their children, too   6 now_ms, tests only
-- Reply  codes for as many of the ids, in order, as a call may do: 0 removed, 1 no such job,
--        2 locked by a worker, 3 a pending child is, 4 its scheduler's next iteration,
--        5 has more children than one call may remove: call again
-- Events "removed" prev=state for each job; "waiting" or "delayed" for a parent this releases
-- @include lib/clock
-- @include lib/lane
-- @include lib/family
local memo_key, seq = ARGV[2], tonumber(ARGV[3])
local answered = recall(memo_key, seq)
if answered then return answered end

local call = open_call(ARGV[1], clock_now(ARGV[6]))
local budget = { left = 500 }
local codes = {}
for i, id in ipairs(cmsgpack.unpack(ARGV[4])) do
  if i > 1 and budget.left <= 0 then break end
  codes[i] = remove_job(call, id, ARGV[5] == "1", budget)
end
close_call(call)
remember(memo_key, seq, codes)
return codes

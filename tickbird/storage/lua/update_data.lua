#!lua
-- Replace the payload of a job, in whatever state it is; an attempt that runs keeps the old one.
--
-- KEYS   1 meta (for routing; the others are built from the prefix)
-- ARGV   1 prefix of the queue's keys   2 memo key of the lane   3 sequence number
--        4 id   5 data, JSON   6 now_ms, tests only
-- Reply  1 = replaced, 0 = no such job
-- Event  none
-- @include lib/lane
-- @include lib/queue
local q = open_queue(ARGV[1])
local memo_key, seq, id = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local answered = recall(memo_key, seq)
if answered then return answered end

-- Only where a job stands: a hash without a name would be nobody's.
local answer = redis.call("HEXISTS", q.job(id), "name")
if answer == 1 then redis.call("HSET", q.job(id), "data", ARGV[5]) end
remember(memo_key, seq, answer)
return answer

#!lua flags=allow-oom
-- Stop starting jobs of a queue; adds go on.
--
-- KEYS   1 meta (for routing)
-- ARGV   1 prefix of the queue's keys
-- Reply  1 = paused now, 0 = was paused already
-- Event  "paused"
-- @include lib/events
-- @include lib/push
local q = open_queue(ARGV[1])
if read_meta(q).paused then return 0 end
redis.call("HSET", q.meta, "paused", 1)
-- Where clients of BullMQ 1 to 5 are at work, `paused` is what they rename over `wait` on resume:
-- what waits now has to stand there, too. A list is never renamed over another.
if read_meta(q).wait_list == q.paused and redis.call("EXISTS", q.paused) == 0
    and redis.call("EXISTS", q.wait) == 1 then
  redis.call("RENAME", q.wait, q.paused)
end
redis.call("DEL", q.marker)
emit(q, "paused")
return 1

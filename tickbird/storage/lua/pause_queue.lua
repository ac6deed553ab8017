#!lua flags=allow-oom
-- Stop starting jobs of a queue; adds go on. Lists stay where they are.
--
-- KEYS   1 meta (for routing)
-- ARGV   1 prefix of the queue's keys
-- Reply  1 = paused now, 0 = was paused already
-- Event  "paused"
-- @include lib/events
-- @include lib/push
local q = open_queue(ARGV[1])
local meta = read_meta(q)
if meta.paused then return 0 end
redis.call("HSET", q.meta, "paused", 1)
redis.call("DEL", q.marker)
emit(q, "paused")
return 1

#!lua flags=allow-oom
-- Set or lift what limits a queue over all its workers. Idle workers look again at once.
--
-- KEYS   1 meta (for routing; the others are built from the prefix)
-- ARGV   1 prefix of the queue's keys   2 which: concurrency | rate | hold
--        3 concurrency: jobs at once; rate: starts; hold: ms without any start; "" = lifted
--        4 rate: window, ms   5 now_ms, tests only
-- Reply  1 = the queue has a rate limit (without one, only workers with their own heed a hold)
-- Event  none
-- @include lib/push
local q = open_queue(ARGV[1])
local which, value = ARGV[2], ARGV[3]
local FIELDS = { concurrency = { "concurrency" }, rate = { "max", "duration" } }

if which == "hold" then
  if value == "" then
    redis.call("DEL", q.limiter)
  else
    redis.call("SET", q.limiter, "9007199254740991", "PX", value)
  end
elseif value == "" then
  redis.call("HDEL", q.meta, unpack(FIELDS[which]))
elseif which == "rate" then
  redis.call("HSET", q.meta, "max", value, "duration", ARGV[4])
else
  redis.call("HSET", q.meta, "concurrency", value)
end
local meta = read_meta(q)
if redis.call("EXISTS", meta.wait_list, q.prioritized) > 0 then mark_work_unless_held(q, meta) end
return meta.max and 1 or 0

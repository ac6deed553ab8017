#!lua flags=allow-oom
-- Start jobs of a paused queue again. What older clients parked in `paused` is merged back at the
-- end that is served first, its order kept; a list is never renamed over another.
--
-- KEYS   1 meta (for routing)
-- ARGV   1 prefix of the queue's keys   2 ids to move at most
-- Reply  { 1 = resumed now | 0 = was not paused, 1 = `paused` still holds ids: call again }
-- Event  "resumed"
-- @include lib/events
-- @include lib/push
local q = open_queue(ARGV[1])
local at_most = tonumber(ARGV[2])
local was_paused = redis.call("HDEL", q.meta, "paused") == 1

-- The newest id is at the left and `wait` is served from the right: moving from the left end of
-- `paused` to the right end of `wait` keeps the oldest the next to run.
local moved = 0
while moved < at_most do
  local ids = redis.call("LPOP", q.paused, math.min(1000, at_most - moved))
  if not ids then break end
  redis.call("RPUSH", q.wait, unpack(ids))
  moved = moved + #ids
end
if was_paused or moved > 0 then
  if redis.call("LLEN", q.wait) + redis.call("ZCARD", q.prioritized) > 0 then
    mark_work(q)
  else
    mark_next_delay(q)
  end
end
if was_paused then emit(q, "resumed") end
return { was_paused and 1 or 0, redis.call("EXISTS", q.paused) }

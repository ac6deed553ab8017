#!lua flags=allow-oom
-- Delete a paused queue with all its jobs, a step at a time; the last step deletes the queue's own
-- keys and with them the pause.
--
-- KEYS   1 meta (for routing; the others are built from the prefix)
-- ARGV   1 prefix of the queue's keys   2 1 = also jobs that workers hold   3 jobs to delete, at most
--        4 now_ms, tests only
-- Reply  { 0 = nothing is left | 1 = call again | 2 = refused: not paused | 3 = refused: jobs are
--          active; jobs deleted }
-- Events none but those of parents in other queues that this releases
-- @include lib/clock
-- @include lib/remove
local q = open_queue(ARGV[1])
if redis.call("EXISTS", q.meta) == 0 and redis.call("EXISTS", q.id, q.wait, q.active) == 0 then
  return { 0, 0 }
end
if redis.call("HEXISTS", q.meta, "paused") == 0 then return { 2, 0 } end
if ARGV[2] ~= "1" and redis.call("EXISTS", q.active) == 1 then return { 3, 0 } end

local call = open_call(ARGV[1], clock_now(ARGV[4]))
local at_most = tonumber(ARGV[3])
local deleted = 0

local function delete_from(list, pop, step)
  while deleted < at_most do
    local popped = redis.call(pop, list, at_most - deleted)
    if not popped or #popped == 0 then return end
    local ids, locks = {}, {}
    for i = 1, #popped, step do
      ids[#ids + 1] = popped[i]
      locks[#locks + 1] = q.job(popped[i]) .. ":lock"
    end
    if list == q.active then redis.call("UNLINK", unpack(locks)) end
    delete_with_ties(call, ids)
    deleted = deleted + #ids
  end
end

local function delete_schedulers()
  local popped = redis.call("ZPOPMIN", q["repeat"], at_most)
  local keys = {}
  for i = 1, #popped, 2 do keys[#keys + 1] = q["repeat:" .. popped[i]] end
  if #keys > 0 then redis.call("UNLINK", unpack(keys)) end
  return #keys < at_most
end

-- Parents first: children deleted after them release nobody.
for _, set in ipairs({ "waiting-children", "delayed", "prioritized", "completed", "failed" }) do
  delete_from(q[set], "ZPOPMIN", 2)
end
for _, list in ipairs({ "active", "wait", "paused" }) do delete_from(q[list], "RPOP", 1) end
local is_done = deleted < at_most and delete_schedulers()

for prefix, other in pairs(call.calls) do
  if prefix ~= ARGV[1] then settle(other) end
end
if is_done then
  redis.call("UNLINK", q.events, q.delay, q["stalled-check"], q.stalled, q.id, q.pc, q.marker,
    q.limiter, q.meta, q["metrics:completed"], q["metrics:completed:data"], q["metrics:failed"],
    q["metrics:failed:data"], q.own("locks"), q.own("stats"), q.own("cancel"))
end
return { is_done and 0 or 1, deleted }

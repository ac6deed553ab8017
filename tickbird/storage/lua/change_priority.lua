#!lua flags=allow-oom
-- Give a job another priority. One that waits moves to its new place at once; one in any other
-- state has it when it next waits. A job without priority is searched for in its list, which is
-- linear in the list's length.
--
-- KEYS   1 meta (for routing; the others are built from the prefix)
-- ARGV   1 prefix of the queue's keys   2 memo key of the lane   3 sequence number
--        4 id   5 priority (0 = none)   6 1 = before the jobs of that priority, not behind them
--        7 now_ms, tests only
-- Reply  1 = changed, 0 = no such job
-- Event  none
-- @include lib/clock
-- @include lib/lane
-- @include lib/family
local memo_key, seq, id, priority = ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local answered = recall(memo_key, seq)
if answered then return answered end

local call = open_call(ARGV[1], clock_now(ARGV[7]))
local q = call.q
local job = q.job(id)

-- What a job that waits is not in. Cheap, and spares searching the lists.
local function is_elsewhere()
  if redis.call("EXISTS", job .. ":lock") == 1 then return true end
  for _, set in ipairs({ "delayed", "completed", "failed", "waiting-children" }) do
    if redis.call("ZSCORE", q[set], id) then return true end
  end
  return false
end

local function leave_waiting()
  if redis.call("ZREM", q.prioritized, id) == 1 then return true end
  if is_elsewhere() then return false end
  local budget = { left = 0 }
  return leave_list(q, q.wait, id, budget) or leave_list(q, q.paused, id, budget)
end

local answer = 0
if redis.call("EXISTS", job) == 1 then
  if leave_waiting() then
    if ARGV[6] == "1" then
      push_to_front(q, call.meta, id, priority)
      call.pushed = true
    else
      make_wait(call, id, priority, false)
    end
  end
  redis.call("HSET", job, "priority", priority)
  answer = 1
end
close_call(call)
remember(memo_key, seq, answer)
return answer

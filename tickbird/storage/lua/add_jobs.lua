#!lua
-- Add jobs, alone or as a flow: each to wait, prioritized, delayed or, with children, to where
-- parents wait. Parents stand before their children.
--
-- KEYS   1 meta (for routing; the others are built from the prefix)
-- ARGV   1 prefix of the queue's keys   2 memo key of the lane   3 sequence number
--        4 msgpack: jobs, each a map { id or "", name, data, opts, delay_ms, priority, lifo,
--          timestamp_ms or 0 } and where they apply { prefix (of another queue), parent_key,
--          parent, dedup, has_children }   5 now_ms, tests only
-- Reply  per job { id, 1 = added | 0 = another job stands for it: same id, or same dedup id }
-- Errors NO_PARENT, OTHER_PARENT: nothing is stored
-- Events "added", then "waiting", "delayed" or "waiting-children"; "duplicated"; "deduplicated"
-- @include lib/clock
-- @include lib/lane
-- @include lib/add
local memo_key, seq = ARGV[2], tonumber(ARGV[3])
local answered = recall(memo_key, seq)
if answered then return answered end

local jobs = cmsgpack.unpack(ARGV[4])
local call = open_call(ARGV[1], clock_now(ARGV[5]))

-- All that may be refused is refused before the first write. Ids and ties of this very call count.
local added, ties = {}, {}
for _, job in ipairs(jobs) do
  local key = (job.prefix or call.q.prefix) .. job.id
  if job.parent_key then
    if not added[job.parent_key] and redis.call("EXISTS", job.parent_key) == 0 then
      return redis.error_reply("NO_PARENT there is no job " .. job.parent_key)
    end
    local other = job.id ~= "" and (ties[key] or redis.call("HGET", key, "parentKey"))
    if other and other ~= job.parent_key
        and (added[other] or redis.call("EXISTS", other) == 1) then
      return redis.error_reply("OTHER_PARENT job " .. job.id .. " is a child of " .. other)
    end
  end
  if job.id ~= "" then
    added[key] = true
    ties[key] = job.parent_key or ties[key]
  end
end

local answer, parents = {}, {}
for i, job in ipairs(jobs) do
  local id, is_new = add_job(call_for(call, job.prefix or call.q.prefix), job)
  answer[i] = { id, is_new }
  if job.parent_key then parents[job.parent_key] = true end
  if job.has_children then parents[(job.prefix or call.q.prefix) .. id] = true end
end
-- A parent all of whose children were there already and done need not wait.
for parent_key in pairs(parents) do release_if_done(call, parent_key) end
close_call(call)
remember(memo_key, seq, answer)
return answer

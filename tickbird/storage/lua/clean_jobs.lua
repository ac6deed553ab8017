#!lua flags=allow-oom
-- Delete the old jobs of one state, a step at a time. What a job is old by: finished ones by their
-- end, delayed ones by their last start or else their creation, prioritized ones by their creation,
-- those in lists by their last end, start or else creation. Jobs a worker holds and, unless they
-- are finished, the next iterations of schedulers stay.
--
-- KEYS   1 meta (for routing; the others are built from the prefix)
-- ARGV   1 prefix of the queue's keys   2 memo key of the lane   3 sequence number
--        4 from: completed | failed | delayed | prioritized | wait | paused | active
--        5 jobs to delete, at most   6 age, ms   7 older than, ms, or "" = now less the age
--        8 where to go on, or ""   9 now_ms, tests only
-- Reply  { jobs deleted, where to go on or "" = done, older than }
-- Event  "cleaned" with the count; those of a parent that this releases
-- @include lib/clock
-- @include lib/lane
-- @include lib/remove
local memo_key, seq, from, at_most = ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local answered = recall(memo_key, seq)
if answered then return answered end

local LOOK, LIST_STEP = 1000, 250
local call = open_call(ARGV[1], clock_now(ARGV[9]))
local q = call.q
local older_ms = tonumber(ARGV[7]) or call.now_ms - tonumber(ARGV[6])
local going = {}

local FIELDS = {
  delayed = { "processedOn", "timestamp" },
  prioritized = { "timestamp" },
}
local LIST_FIELDS = { "finishedOn", "processedOn", "timestamp" }

local function is_old(id)
  local names = FIELDS[from] or LIST_FIELDS
  local v = fields_of(q, id, unpack(names))
  for i = 1, #names do
    if v[i] then return (tonumber(v[i]) or 0) <= older_ms end
  end
  return false
end

local function goes(id)
  if not is_old(id) or is_next_iteration(q, id) then return false end
  return from ~= "active" or redis.call("EXISTS", q.job(id) .. ":lock") == 0
end

local function clean_finished(set)
  going = redis.call("ZRANGE", set, "-inf", older_ms, "BYSCORE", "LIMIT", 0, at_most)
  if #going > 0 then redis.call("ZREM", set, unpack(going)) end
  return #going == at_most and "more" or ""
end

local function clean_set(set)
  local first = ARGV[8] == "" and "-inf" or ARGV[8]
  local found = redis.call("ZRANGE", set, first, "+inf", "BYSCORE", "LIMIT", 0, LOOK, "WITHSCORES")
  local last = first
  for i = 1, #found, 2 do
    if #going == at_most then break end
    if goes(found[i]) then going[#going + 1] = found[i] end
    last = found[i + 1]
  end
  if #going > 0 then redis.call("ZREM", set, unpack(going)) end
  if #found < 2 * LOOK and #going < at_most then return "" end
  return (#going == 0 and last == first) and "(" .. last or last
end

-- How many ids at the end served first have been looked at already. `seen` = "<count>:<id of the
-- last>": workers may have taken some of them since.
local function looked_at(list, seen)
  local depth, id = string.match(seen, "^(%d+):(.*)$")
  depth = tonumber(depth) or 0
  if depth == 0 or redis.call("LINDEX", list, -depth) == id then return depth end
  local length = redis.call("LLEN", list)
  local place = redis.call("LPOS", list, id, "RANK", -1, "MAXLEN", depth + LOOK)
  return place and length - place or 0
end

-- The ids to delete are overwritten by a mark first: one pass then takes all of them out.
local function clean_list(list)
  at_most = math.min(at_most, LIST_STEP)
  local depth = looked_at(list, ARGV[8])
  local ids = redis.call("LRANGE", list, -depth - LOOK, -depth - 1)
  local mark, last = "0:tb", nil
  local looked = 0
  for i = #ids, 1, -1 do
    if #going == at_most then break end
    looked = looked + 1
    if goes(ids[i]) then
      going[#going + 1] = ids[i]
      redis.call("LSET", list, -depth - looked, mark)
    else
      last = ids[i]
    end
  end
  local more = looked < #ids or #ids == LOOK
  if #going > 0 then
    local from_right = 2 * depth <= redis.call("LLEN", list)
    redis.call("LREM", list, from_right and -#going or #going, mark)
  end
  if from == "active" and #going > 0 then
    redis.call("ZREM", q.own("locks"), unpack(going))
    redis.call("SREM", q.stalled, unpack(going))
    call.pushed = true -- under a global concurrency another job may start now
  end
  if not more then return "" end
  depth = depth + looked - #going
  -- With nothing left behind, the last id looked at before is still the last.
  if not last then return ARGV[8] ~= "" and depth > 0 and ARGV[8] or "0:" end
  return depth .. ":" .. last
end

local next_place
if from == "completed" or from == "failed" then
  next_place = clean_finished(q[from])
elseif from == "delayed" or from == "prioritized" then
  next_place = clean_set(q[from])
else
  next_place = clean_list(q[from])
end
if #going > 0 then
  delete_with_ties(call, going)
  count_removed(call, from, #going)
  emit(q, "cleaned", "count", #going)
end
close_call(call)
local answer = { #going, next_place, older_ms }
remember(memo_key, seq, answer)
return answer

#!lua flags=allow-oom
-- Delete jobs that wait, a step at a time. The next iterations of schedulers stay, and so does what
-- became ready after the drain had begun.
--
-- KEYS   1 meta (for routing; the others are built from the prefix)
-- ARGV   1 prefix of the queue's keys   2 memo key of the lane   3 sequence number
--        4 from: wait | paused | prioritized | delayed   5 jobs to look at, at most
--        6 score to go on from (sets), or ""   7 begun at, ms, or "" = now   8 now_ms, tests only
-- Reply  { jobs deleted, jobs looked at, score to go on from or "", begun at }
-- Events none but those of a parent that this releases
-- @include lib/clock
-- @include lib/lane
-- @include lib/remove
local memo_key, seq, from, at_most = ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local answered = recall(memo_key, seq)
if answered then return answered end

local call = open_call(ARGV[1], clock_now(ARGV[8]))
local q = call.q
local begun_ms = tonumber(ARGV[7]) or call.now_ms
local going = {}

local function stays(id)
  if is_next_iteration(q, id) then return true end
  if from == "delayed" then return false end
  return (tonumber(fields_of(q, id, "tb:rdy")[1]) or 0) > begun_ms
end

-- A list is emptied from the end served first; what stays goes to its other end, in order.
local function drain_list(list)
  local ids = redis.call("RPOP", list, at_most) or {}
  for _, id in ipairs(ids) do
    if stays(id) then
      redis.call("LPUSH", list, id)
    elseif string.sub(id, 1, 2) ~= "0:" then
      going[#going + 1] = id
    end
  end
  return #ids, ""
end

local function drain_set(set)
  local first = ARGV[6] == "" and "-inf" or ARGV[6]
  local found = redis.call("ZRANGE", set, first, "+inf", "BYSCORE", "LIMIT", 0, at_most, "WITHSCORES")
  for i = 1, #found, 2 do
    if not stays(found[i]) then going[#going + 1] = found[i] end
  end
  if #going > 0 then redis.call("ZREM", set, unpack(going)) end
  if #found < 2 * at_most then return #found / 2, "" end
  local last = found[#found]
  -- Nothing but what stays, all of one score: go past it.
  return at_most, (#going == 0 and last == ARGV[6]) and "(" .. last or last
end

local looked, score
if from == "wait" or from == "paused" then
  looked, score = drain_list(q[from])
else
  looked, score = drain_set(q[from])
end
delete_with_ties(call, going)
count_removed(call, from, #going)
close_call(call)
local answer = { #going, looked, score, begun_ms }
remember(memo_key, seq, answer)
return answer

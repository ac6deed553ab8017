#!lua flags=allow-oom
-- Remove what a look at the keys found adrift, if it still is: job hashes in no state, and ids in a
-- state without a hash. Or put those jobs back where their fields say they belong.
--
-- KEYS   1 meta (for routing; the others are built from the prefix)
-- ARGV   1 prefix of the queue's keys   2 memo key of the lane   3 sequence number
--        4 msgpack: { id, list or set it is in | "" = a hash, the hash's marks as they were seen }
--        5 1 = put jobs back, 0 = remove them   6 now_ms, tests only
-- Reply  codes for as many of them, in order, as a call may do: 1 removed or back, 0 not adrift
-- Event  "removed" prev=unknown, or prev=state; "waiting" prev=unknown for a job put back to wait
-- @include lib/clock
-- @include lib/lane
-- @include lib/family
local memo_key, seq = ARGV[2], tonumber(ARGV[3])
local answered = recall(memo_key, seq)
if answered then return answered end

local call = open_call(ARGV[1], clock_now(ARGV[6]))
local q = call.q
local budget = { left = 500 }

-- Every move of a job changes one of these; so a job with the same marks has stood still since it
-- was seen, and the lists were read whole meanwhile. Their ends are looked at again.
local function is_adrift(id, marks)
  local v = fields_of(q, id, "ats", "atm", "processedOn", "finishedOn", "delay", "tb:rdy", "tb:gen")
  for i = 1, 7 do
    if (v[i] or "") ~= marks[i] then return false end
  end
  if redis.call("EXISTS", q.job(id) .. ":lock") == 1 then return false end
  for _, set in ipairs(SETS) do
    if redis.call("ZSCORE", q[set], id) then return false end
  end
  for _, list in ipairs(LISTS) do
    for _, rank in ipairs({ 1, -1 }) do
      if redis.call("LPOS", q[list], id, "RANK", rank, "MAXLEN", 1000) then return false end
    end
  end
  return true
end

local function leave(id, suffix)
  if redis.call("EXISTS", q.job(id)) == 1 then return 0 end
  local gone = false
  for _, list in ipairs(LISTS) do
    if suffix == list then gone = leave_list(q, q[list], id, budget) end
  end
  for _, set in ipairs(SETS) do
    if suffix == set then gone = redis.call("ZREM", q[set], id) == 1 end
  end
  if gone then emit(q, "removed", "jobId", id, "prev", suffix) end
  return gone and 1 or 0
end

-- A finished job belongs among the finished; any other has yet to run.
local function put_back(id)
  local job = q.job(id)
  local v = fields_of(q, id, "finishedOn", "failedReason", "priority")
  local finished_ms = tonumber(v[1])
  if finished_ms then
    redis.call("ZADD", v[2] and q.failed or q.completed, finished_ms, id)
    return
  end
  redis.call("HSET", job, "delay", 0, "tb:rdy", call.now_ms)
  make_wait(call, id, tonumber(v[3]) or 0, false)
  emit(q, "waiting", "jobId", id, "prev", "unknown")
end

local codes = {}
for i, found in ipairs(cmsgpack.unpack(ARGV[4])) do
  if i > 1 and budget.left <= 0 then break end
  local id, suffix = found[1], found[2]
  if suffix ~= "" then
    codes[i] = leave(id, suffix)
  elseif is_adrift(id, found[3]) then
    if ARGV[5] == "1" then
      put_back(id)
    else
      delete_with_ties(call, { id })
      emit(q, "removed", "jobId", id, "prev", "unknown")
    end
    codes[i] = 1
  else
    codes[i] = 0
  end
  budget.left = budget.left - 5
end
close_call(call)
remember(memo_key, seq, codes)
return codes

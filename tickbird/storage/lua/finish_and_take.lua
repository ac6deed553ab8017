#!lua flags=allow-oom
-- End attempts and take the next jobs, as many as there are slots.
--
-- KEYS   1 meta (for routing; the others are built from the prefix)
-- ARGV   1 prefix of the queue's keys   2 memo key of the lane   3 sequence number
--        4 msgpack: attempts that ended, each a map { id, token, outcome = completed | failed |
--          retried | postponed | handed_back | waiting_children, text, stacktrace, delay_ms,
--          keep_count (-1 = all, 0 = delete), keep_age_s, keep_limit, name, wait_bucket
--          (-1 = unknown), wait_ms, run_bucket, run_ms, attempts, reason, lifo, started }
--        5 slots to fill   6 token for the jobs taken   7 msgpack: { lock_ms, name or "", max,
--          duration (the worker's own rate limit, or absent), data_points (of metrics),
--          stall_limit (up to which it runs what others have given up on, or absent) }
--        8 1 = this process may take a suspect   9 now_ms, tests only
-- Reply  { per ended attempt: 0 done, 1 lock lost, 2 not active, 3 vanished, 4 children pending,
--          5 children failed, or the text of an error; { id, hash as flat list } per job taken;
--          now_ms; ms until a rate limit ends; ms of the next due job or 0; why taking failed or "" }
-- Events as each outcome has them; "active" per job taken; "drained" when nothing is left
-- (delayed jobs count as left when there are slots to fill: so BullMQ's workers tell it)
-- @include lib/clock
-- @include lib/lane
-- @include lib/finish
-- @include lib/take
local memo_key, seq, token = ARGV[2], tonumber(ARGV[3]), ARGV[6]
local now_ms = clock_now(ARGV[9])
local answered = recall(memo_key, seq)
if answered then
  -- Sent again: the same codes, and of the jobs taken then those that are still the caller's.
  local taken = {}
  for _, id in ipairs(answered[2]) do
    local job = ARGV[1] .. id
    if redis.call("GET", job .. ":lock") == token then
      taken[#taken + 1] = { id, redis.call("HGETALL", job) }
    end
  end
  return { answered[1], taken, now_ms, 0, 0, "" }
end

local call = open_call(ARGV[1], now_ms)
local q = call.q
call.trims, call.left = {}, {}
local by = cmsgpack.unpack(ARGV[7])
by.token, by.may_take_suspect = token, ARGV[8] == "1"
call.data_points = by.data_points

local codes = {}
for i, attempt in ipairs(cmsgpack.unpack(ARGV[4])) do
  -- One corrupt key spoils one job, never the batch.
  local ok, code = pcall(finish_attempt, call, attempt)
  codes[i] = ok and code or tostring(type(code) == "table" and code.err or code)
end
for _, rule in pairs(call.trims) do
  trim_finished(call, rule[1], rule[2], rule[3], rule[4])
end
if #call.left > 0 then
  redis.call("ZREM", q.own("locks"), unpack(call.left))
  redis.call("SREM", q.stalled, unpack(call.left))
end

local wanted = tonumber(ARGV[5])
local taken, limited_ms, fault = {}, 0, ""
if wanted > 0 then
  local ok, found, wait_ms = pcall(take_jobs, call, wanted, by)
  if ok then
    taken, limited_ms = found, wait_ms
  else
    -- A key of the wrong kind: what ended is settled all the same. Jobs popped before the fault
    -- are brought back by their deadline.
    fault = tostring(type(found) == "table" and found.err or found)
  end
end
if #taken == 0 and #codes > 0 and fault == "" then
  if redis.call("LLEN", q.wait) + redis.call("ZCARD", q.prioritized) > 0 then
    call.pushed = true
  elseif call.finished and redis.call("LLEN", q.active) == 0 and not (wanted > 0 and next_due_ms(q)) then
    emit(q, "drained")
  end
end
if fault == "" then
  close_call(call)
else
  write_stats(call.stats)
end

local ids = {}
for i, job in ipairs(taken) do ids[i] = job[1] end
remember(memo_key, seq, { codes, ids })
return { codes, taken, now_ms, limited_ms, #taken == 0 and next_due_ms(q) or 0, fault }

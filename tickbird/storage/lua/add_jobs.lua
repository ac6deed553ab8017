#!lua
-- Add jobs to a queue: each to wait, prioritized or delayed.
--
-- KEYS   1 meta (for routing; the others are built from the prefix)
-- ARGV   1 prefix of the queue's keys   2 memo key of the lane   3 sequence number
--        4 msgpack: jobs, each { id or "", name, data, opts, delay_ms, priority, lifo,
--          timestamp_ms or 0 }   5 now_ms, tests only
-- Reply  per job { id, 1 = added | 0 = a job of that id was there already }
-- Events "added", then "waiting" or "delayed"; "duplicated" for an id that was there
-- @include lib/clock
-- @include lib/lane
-- @include lib/events
-- @include lib/push
-- @include lib/stats
local q = open_queue(ARGV[1])
local memo_key, seq = ARGV[2], tonumber(ARGV[3])
local answered = recall(memo_key, seq)
if answered then return answered end

local now_ms = clock_now(ARGV[5])
local meta = read_meta(q)
local stats = open_stats(q)
local answer, woke, delayed = {}, false, false

local function store(job, id, timestamp_ms)
  redis.call("HSET", q.job(id), "name", job.name, "data", job.data, "opts", job.opts,
    "timestamp", timestamp_ms, "delay", job.delay_ms, "priority", job.priority)
  emit(q, "added", "jobId", id, "name", job.name)
  count(stats, "added:" .. counted_name(stats, job.name), 1)
end

local function place(job, id, timestamp_ms)
  if job.delay_ms > 0 then
    local due_ms = timestamp_ms + job.delay_ms
    push_delayed(q, id, due_ms)
    emit(q, "delayed", "jobId", id, "delay", due_ms)
    delayed = true
  else
    push_by_priority(q, meta, id, job.priority, job.lifo)
    emit(q, "waiting", "jobId", id)
    woke = true
  end
end

for i, fields in ipairs(cmsgpack.unpack(ARGV[4])) do
  local job = {
    name = fields[2], data = fields[3], opts = fields[4], delay_ms = fields[5],
    priority = fields[6], lifo = fields[7],
  }
  local timestamp_ms = fields[8] > 0 and fields[8] or now_ms
  local counter = redis.call("INCR", q.id)
  local id = fields[1] ~= "" and fields[1] or string.format("%d", counter)
  if fields[1] ~= "" and redis.call("EXISTS", q.job(id)) == 1 then
    emit(q, "duplicated", "jobId", id)
    answer[i] = { id, 0 }
  else
    store(job, id, timestamp_ms)
    place(job, id, timestamp_ms)
    answer[i] = { id, 1 }
  end
end

if woke then mark_work_unless_held(q, meta) end
if delayed then mark_next_delay(q) end
trim_events(q, meta)
write_stats(stats)
remember(memo_key, seq, answer)
return answer

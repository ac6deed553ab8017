-- @include lib/queue
-- Where a job waits, and how idle workers hear of it.

local function priority_of(job)
  return tonumber(redis.call("HGET", job, "priority")) or 0
end

-- Behind all jobs of its priority. `lifo` puts a job without priority in front instead.
local function push_by_priority(q, meta, id, priority, lifo)
  if priority > 0 then
    local turn = redis.call("INCR", q.pc) % 4294967296
    redis.call("ZADD", q.prioritized, priority * 4294967296 + turn, id)
  else
    redis.call(lifo and "RPUSH" or "LPUSH", meta.wait_list, id)
  end
end

-- Before all jobs of its priority: what was taken and not run keeps its place.
local function push_to_front(q, meta, id, priority)
  if priority > 0 then
    redis.call("ZADD", q.prioritized, priority * 4294967296, id)
  else
    redis.call("RPUSH", meta.wait_list, id)
  end
end

-- Due times are milliseconds in the score's upper bits; the low 12 keep equal times in order.
-- Beyond 4,096 jobs in one millisecond the last place is shared.
local function push_delayed(q, id, due_ms)
  local first = due_ms * 4096
  local last = redis.call("ZRANGE", q.delayed, first + 4095, first, "BYSCORE", "REV",
    "LIMIT", 0, 1, "WITHSCORES")
  local score = first
  if last[2] then score = math.min(tonumber(last[2]) + 1, first + 4095) end
  redis.call("ZADD", q.delayed, score, id)
end

local function mark_work(q)
  redis.call("ZADD", q.marker, 0, "0")
end

local function mark_work_unless_held(q, meta)
  if not is_paused_or_maxed(q, meta) then mark_work(q) end
end

-- Milliseconds at which the earliest delayed job is due, or nil.
local function next_due_ms(q)
  local first = redis.call("ZRANGE", q.delayed, 0, 0, "WITHSCORES")
  if first[2] then return tonumber(first[2]) / 4096 end
  return nil
end

local function mark_next_delay(q)
  local due_ms = next_due_ms(q)
  if due_ms then redis.call("ZADD", q.marker, due_ms, "1") end
end

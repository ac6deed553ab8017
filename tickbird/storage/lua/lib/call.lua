-- @include lib/queue
-- @include lib/events
-- @include lib/push
-- @include lib/stats
-- What one script call knows of a queue and owes it at the end: markers, trimming, counters, once
-- each, however many jobs it moved.

local function open_call(prefix, now_ms)
  local q = open_queue(prefix)
  local call = { q = q, meta = read_meta(q), stats = open_stats(q), now_ms = now_ms, calls = {} }
  call.calls[prefix] = call
  return call
end

-- The same for another queue that this call touches: a parent's, a flow's.
local function call_for(call, prefix)
  local other = call.calls[prefix]
  if not other then
    other = open_call(prefix, call.now_ms)
    other.calls = call.calls
    call.calls[prefix] = other
  end
  return other
end

local function settle(call)
  if call.delayed then mark_next_delay(call.q) end
  if call.pushed then mark_work_unless_held(call.q, call.meta) end
  trim_events(call.q, call.meta)
  write_stats(call.stats)
end

local function close_call(call)
  for _, each in pairs(call.calls) do settle(each) end
end

-- Put a job behind all of its priority, ready now.
local function make_wait(call, id, priority, lifo)
  push_by_priority(call.q, call.meta, id, priority, lifo)
  call.pushed = true
end

-- Put a job where it waits until `due_ms`, and say so.
local function make_delayed(call, id, due_ms)
  push_delayed(call.q, id, due_ms)
  emit(call.q, "delayed", "jobId", id, "delay", due_ms)
  call.delayed = true
end

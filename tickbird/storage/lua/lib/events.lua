-- @include lib/queue
-- Tell the queue's stream. `tb` marks events of ours: readers of other clients see one more
-- property, and the observer never counts what the scripts have counted already.
local function emit(q, event, ...)
  local fields = { ... }
  fields[#fields + 1] = "tb"
  fields[#fields + 1] = "1"
  redis.call("XADD", q.events, "*", "event", event, unpack(fields))
end

local function trim_events(q, meta)
  redis.call("XTRIM", q.events, "MAXLEN", "~", meta.max_events)
end

-- The keys of one queue, by suffix: `q.wait` is "<prefix>wait", `q.job(id)` a job's hash,
-- `q.own("locks")` a key of ours beside them (same hash tag, ignored by peers).
local function open_queue(prefix)
  local q = {
    prefix = prefix,
    job = function(id) return prefix .. id end,
    own = function(suffix) return "tickbird:" .. prefix .. suffix end,
  }
  return setmetatable(q, {
    __index = function(_, suffix) return prefix .. suffix end,
  })
end

-- The settings a call needs, read once. Sets the length of the event stream where nobody has.
local function read_meta(q)
  local v = redis.call("HMGET", q.meta,
    "paused", "concurrency", "max", "duration", "opts.maxLenEvents", "version")
  if not v[5] then redis.call("HSET", q.meta, "opts.maxLenEvents", 10000) end
  local meta = {
    paused = v[1] ~= false,
    concurrency = tonumber(v[2]),
    max = tonumber(v[4]) and tonumber(v[3]),
    duration = tonumber(v[4]),
    -- Written by queue objects of other clients when they are made; never by us.
    has_peers = v[6] ~= false,
    max_events = tonumber(v[5]) or 10000,
    wait_list = q.wait,
  }
  -- While paused, clients of BullMQ 1 to 5 keep new jobs in `paused` and overwrite `wait` on
  -- resume: what we push must then stand where they look.
  if meta.paused and (string.match(v[6] or "", "^bullmq:[1-5]%.")
      or redis.call("EXISTS", q.paused) == 1) then
    meta.wait_list = q.paused
  end
  return meta
end

local function is_paused_or_maxed(q, meta)
  if meta.paused then return true end
  return meta.concurrency ~= nil and redis.call("LLEN", q.active) >= meta.concurrency
end

-- A lane is one caller's sequence of writing calls, one in flight at a time. Its memo holds the
-- last call's number and answer, so that a call sent again has no second effect and gets the
-- same answer. The memo is written last and lives or dies with the effects.

-- What the call with this number answered before; nil when it is new. Fails for a late copy.
local function recall(memo_key, seq)
  local memo = redis.call("GET", memo_key)
  if not memo then return nil end
  local bar = string.find(memo, "|", 1, true)
  local last = tonumber(string.sub(memo, 1, bar - 1))
  if seq < last then
    error({ err = "LATE_CALL a newer call of this lane was already carried out" })
  end
  if seq == last then return cmsgpack.unpack(string.sub(memo, bar + 1)) end
  return nil
end

local function remember(memo_key, seq, answer)
  local memo = string.format("%d|", seq) .. cmsgpack.pack(answer)
  redis.call("SET", memo_key, memo, "PX", 86400000)
end

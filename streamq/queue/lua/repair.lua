-- repair: mends what check found, if it is still so. Nothing is dropped that a stream still holds.
-- needs: base lease index child notes classify
-- KEYS: {streamq}: absent bodies body clock collapse counts due expiry held holds lane meta notes parked schedule
--   shared stream turns
-- ARGV: now
-- EACH: entry wrong
--   wrong   lost twice both lane (lib/classify), orphan (in an index or a PEL, but in no stream), stray (entry: a
--           member of parked that its entry does not lead to), counts (entry: ''), body:<left>:<right> (entry: whose
--           children share it; what its count is, if it still is, and should be)
-- RETURNS: per row: 1 where something was mended
-- EVENTS: none

local now = clock(ARGV[1])
local out = {}

local mend = {}

-- In none: it goes out now, through the limits. A mail that was in fact sent would have been deleted.
function mend.lost(entry, id)
  schedule(entry, math.floor(now / 1000))
  admitted_to(entry:sub(1, 1), id)
end

-- In two indexes: an operator's hold wins, then the lane, which remembers its limits.
function mend.twice(entry, id)
  if redis.call('ZSCORE', K.held, entry) then unpark(entry)
  elseif not lane_of(entry, id) then return end
  unschedule(entry)
end

-- In an index and leased: its lease ends. If that attempt sends it, the late 250 is noted and wins.
function mend.both(_, id, stream) leave(stream, id) end

function mend.lane(entry, id)
  local p = tonumber(entry:sub(1, 1))
  local lane = lane_of(entry, id)
  if redis.call('ZREM', K.parked, lane .. '|' .. padded(p, id)) == 1 then count('parked:' .. p, -1) end
  park(entry, lane, now)
end

function mend.orphan(entry, id, stream)
  displace(entry, place(entry))
  leave(stream, id)
  forget(entry)
  count('vanished', 1)
end

-- Its entry stands elsewhere, or is seen to by `lost`.
local function mend_stray(member)
  if not redis.call('ZSCORE', K.parked, member) or not is_stray(member) then return 0 end
  local p, lane = tonumber(unpadded(member):sub(1, 1)), lane_in(member)
  redis.call('ZREM', K.parked, member)
  if #lane_range(lane, p, 1) == 0 then emptied(lane, p) end
  count('parked:' .. p, -1)
  return 1
end

-- Whole, in one go: some milliseconds for 50,000; only on an operator's word.
function mend.counts()
  for kind, key in pairs({parked = K.parked, scheduled = K.schedule, held = K.held}) do
    local sums = {}
    for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      local p = kind == 'parked' and unpadded(member):sub(1, 1) or member:sub(1, 1)
      sums[p] = (sums[p] or 0) + 1
    end
    for at = 1, #NAMES do
      redis.call('HSET', K.counts, kind .. ':' .. (at - 1), sums[tostring(at - 1)] or 0)
    end
  end
end

local function mend_body(parent, left, right)
  local key = K.body(parent)
  if (redis.call('HGET', key, 'left') or '') ~= left then return 0 end
  if right == '0' then
    redis.call('UNLINK', key)
    redis.call('ZREM', K.bodies, parent)
  else
    redis.call('HSET', key, 'left', right)
  end
  return 1
end

for entry, wrong in each() do
  local done = 1
  local left, right = wrong:match('^body:(.*):(%d+)$')
  if left then
    done = mend_body(entry, left, right)
  elseif wrong == 'counts' then
    mend.counts()
  elseif wrong == 'stray' then
    done = mend_stray(entry)
  else
    local _, id, stream = split(entry)
    local there = exists(stream, id)
    if wrong == 'orphan' and not there then
      mend.orphan(entry, id, stream)
    elseif there and classify(entry, stream, id, delivered(stream) or '0-0') == wrong then
      mend[wrong](entry, id, stream)
    else
      done = 0
    end
  end
  out[#out + 1] = done
end
return out

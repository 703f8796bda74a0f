-- release: what is due becomes leases: first the schedule, then the lanes that have a free slot, high to low,
-- oldest first. What is due and finds no room rings the bell, once, so that one idle worker comes.
-- needs: base lease index notes limit
-- KEYS: {streamq}: absent bell clock counts due expiry held holds lane lease limit limits meta notes parked
--   schedule stream
-- ARGV: now consumer room bell
--   room       leases this consumer can take       bell  comma list of the bell's entries that woke it
-- RETURNS: now, next (µs of the next due thing, 0 none), token, left (1: something due found no room),
--   then per lease: entry, from ('scheduled' or 'parked': the latter has its slot), notes (JSON or '')
-- EVENTS: none

local given, consumer, room = ARGV[1], ARGV[2], math.min(tonumber(ARGV[3]), 100)
local now = clock(given)
local now_ms = math.floor(now / 1000)
for id in ARGV[4]:gmatch('[^,]+') do
  redis.call('XACK', K.bell, GROUP, id)
  redis.call('XDEL', K.bell, id)
end

local LANES_A_CALL = 100
local ASTRAY = 1000000 -- µs
local RETRY = 100000 -- µs: what is due and may not be taken back yet is looked at again then
local out, taken, left = {}, 0, 0
local barred = false
local token = 0

local function lease(entry, from)
  if token == 0 then token = new_token() end
  local _, id, stream = split(entry)
  if not take(stream, id, consumer, token) then return vanish(entry, stream, id) end
  taken = taken + 1
  out[#out + 1] = entry
  out[#out + 1] = from
  out[#out + 1] = has_notes and redis.call('HGET', K.notes, entry) or ''
end

local function release_schedule(most)
  local due = redis.call('ZRANGEBYSCORE', K.schedule, '-inf', text(now_ms), 'LIMIT', 0, most)
  for _, entry in ipairs(due) do
    local p, _, stream = split(entry)
    if is_rereading(p, stream) then
      barred = true
    elseif unschedule(entry) then
      lease(entry, 'scheduled')
    end
  end
end

local function more_scheduled()
  for _, entry in ipairs(redis.call('ZRANGEBYSCORE', K.schedule, '-inf', text(now_ms), 'LIMIT', 0, 1)) do
    local p, _, stream = split(entry)
    if not is_rereading(p, stream) then left = 1 end
  end
end

-- As many of this lane and priority as slots and room allow; µs of the lane's next slot, nil where it is empty.
local function release_lane(lane, p)
  while true do
    local members = lane_range(lane, p, math.max(1, math.min(room - taken, 100)))
    if #members == 0 then return nil end
    for _, member in ipairs(members) do
      if taken >= room then
        left = 1
        return now
      end
      local next = take_slot(lane, now)
      if next > 0 then return next end
      local entry = unpadded(member)
      if not unpark(entry) then return now + ASTRAY end -- its parts do not agree: for `check --repair`
      lease(entry, 'parked')
    end
  end
end

local function release_lanes()
  for at, name in ipairs(NAMES) do
    local p = at - 1
    if is_rereading(p, K.stream(name)) then
      barred = true
    else
      for _, lane in ipairs(redis.call('ZRANGEBYSCORE', K.due(name), '-inf', text(now), 'LIMIT', 0, LANES_A_CALL)) do
        local next = release_lane(lane, p)
        -- A slot that one priority used is gone for the others of the lane, too.
        if next then
          for _, other in ipairs(NAMES) do redis.call('ZADD', K.due(other), 'XX', text(math.max(next, now)), lane) end
        else
          redis.call('ZREM', K.due(name), lane)
        end
        if left == 1 then return end
      end
    end
  end
end

-- Half each, and what one of them leaves to the other: a million retries of one moment hold up no lane. (Of an
-- odd room the larger half goes to either, by turns.)
local half = math.floor((room + now % 2) / 2)
if half > 0 then release_schedule(half) end
release_lanes()
if taken < room then release_schedule(room - taken) end
more_scheduled()
keep_limits(now)

local next = 0
local function sooner(found, factor)
  local us = found[2] and tonumber(found[2]) * factor
  if us and (next == 0 or us < next) then next = us end
end
sooner(redis.call('ZRANGE', K.schedule, 0, 0, 'WITHSCORES'), 1000)
for _, name in ipairs(NAMES) do sooner(redis.call('ZRANGE', K.due(name), 0, 0, 'WITHSCORES'), 1) end
if barred and next > 0 then next = math.max(next, now + RETRY) end
if left == 1 and redis.call('XLEN', K.bell) == 0 then redis.call('XADD', K.bell, '*', 'due', '1') end
return {text(now), text(next), token, left, unpack(out)}

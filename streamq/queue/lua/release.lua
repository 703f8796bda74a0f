-- release: what is due becomes leases: first the schedule, then the lanes that have a free slot, high to low,
-- oldest first. What is due and finds no room rings the bell, once, so that one idle worker comes.
-- WATCH  One worker comes for what is due next: `watch` says which, and when. The others come behind it, to see that it
--        did: a hundred slots a second are a hundred calls, however many workers there are.
-- needs: base lease index child notes route slots shares pace limit
-- KEYS: {streamq}: absent bell bodies body clock collapse counts due expiry held holds lane lease limit limits
--   meta notes parked pauses schedule shared slots stream throttled turns watch
-- ARGV: now consumer room bell routes
--   room       leases this consumer can take       bell  comma list of the bell's entries that woke it
-- RETURNS: now, next (µs at which to come again, 0 never), token, left (1: something due found no room),
--   then per lease: entry, way (the route on which it has its slot, or '<route>|<site>', as admit has it; '' for one of
--   the schedule, which has none), notes (JSON or ''), slot (its mark: lib/limit, `advance`)
-- EVENTS: none

local given, consumer, room = ARGV[1], ARGV[2], math.min(tonumber(ARGV[3]), 100)
local now = clock(given)
local now_ms = math.floor(now / 1000)
for id in ARGV[4]:gmatch('[^,]+') do
  redis.call('XACK', K.bell, GROUP, id)
  redis.call('XDEL', K.bell, id)
end

know_routes(ARGV[5])
local ROADS_A_CALL = 100
local PAGES = 5 -- of roads that are others' to visit
local ASTRAY = 1000000 -- µs
local LATE = 20000 -- µs: whoever calls takes over from the one that was to come
local BEHIND = 200000 -- µs: so long after it the others call
local RETRY = 100000 -- µs: what is due and may not be taken back yet is looked at again then
local out, taken, left = {}, 0, 0
local barred = false
local passed, others = {}, 0 -- priority → road → true: due, and for other workers
local any_passed = false
local token = 0
local shut -- µs: until then nothing goes, for the queue's own limit or the only route's

local function lease(entry, way, slot)
  if token == 0 then token = new_token() end
  local _, id, stream = split(entry)
  if not take(stream, id, consumer, token) then
    if site_in(way) then slot_left(way, consumer, entry) end
    return vanish(entry, stream, id)
  end
  taken = taken + 1
  out[#out + 1] = entry
  out[#out + 1] = way
  out[#out + 1] = has(K.notes) and redis.call('HGET', K.notes, entry) or ''
  out[#out + 1] = slot
end

-- The newest of its key, and it goes now: the next one of that key is the first of others.
local function wait_over(entry)
  local notes = notes_of(entry)
  if not notes.collapse then return end
  stop_waiting(entry, notes)
  if notes.unread then -- it is looked at now, and then waits with those that were
    notes.collapse, notes.unread = nil, nil
  else
    notes.collapse, notes.waited = nil, 1
  end
  note(entry, notes)
end

local function release_schedule(most)
  local due = redis.call('ZRANGEBYSCORE', K.schedule, '-inf', text(now_ms), 'LIMIT', 0, most)
  for _, entry in ipairs(due) do
    local p, _, stream = split(entry)
    if is_rereading(p, stream) then
      barred = true
    elseif unschedule(entry) then
      if has(K.collapse) then wait_over(entry) end
      lease(entry, '', '')
    end
  end
end

local function more_scheduled()
  for _, entry in ipairs(redis.call('ZRANGEBYSCORE', K.schedule, '-inf', text(now_ms), 'LIMIT', 0, 1)) do
    local p, _, stream = split(entry)
    if not is_rereading(p, stream) then left = 1 end
  end
end

-- The oldest of the lane of this road and priority that has its turn; nil: there is none. Of one that takes no turns
-- several are read at once.
local ahead = {} -- digit → members of the road that is visited, the next one last
local function next_member(road, p)
  while not ahead[p] or #ahead[p] == 0 do
    local lane, several = lane_in_turn(road, p)
    local members = lane_range(lane, p, several and 1 or math.max(1, math.min(room - taken, 100)))
    if #members == 0 and not several then return nil end
    if #members == 0 then emptied(lane, p) end -- its parts did not agree: nobody took its turn away
    ahead[p] = {}
    for at = #members, 1, -1 do ahead[p][#ahead[p] + 1] = members[at] end
  end
  return ahead[p][#ahead[p]]
end

-- As many of this road as slots and room allow, the best priority first, but for the shares of lower ones that wait.
-- µs of the road's next slot, nil where nothing of this priority is left; and 'others' where that slot is another
-- worker's, 'route' where it is its route that has none.
local function release_road(road, p, waits)
  ahead = {}
  while true do
    local member, of = next_member(road, p), p
    if not member then return nil end
    if taken >= room then
      left = 1
      return now
    end
    if waits then
      of = whose_turn(road, p, waits, now)
      local lower = of ~= p and next_member(road, of)
      if of ~= p and not lower then waits[of], of = nil, p end
      member = lower or member
    end
    local entry = unpadded(member)
    local next, way, slot = take_slot(road, now, consumer, entry)
    if next > 0 and stops_reading(way) then
      shut = next
      return next
    elseif next > 0 then
      return next, (way == 'others' or way == 'route') and way
    end
    if not unpark(entry) then -- its parts do not agree: for `check --repair`
      if site_in(way) then slot_left(way, consumer, entry) end
      return now + ASTRAY
    end
    table.remove(ahead[of])
    turn_over(lane_in(member), of)
    if waits then turn_taken(way, site_in(road)) end
    lease(entry, way, slot)
  end
end

-- Road → digit → true: which lower priorities wait there. One command for each of them.
local function lower_ones(roads, p)
  local found = {}
  for q = p + 1, #NAMES - 1 do
    if #roads > 0 and not is_rereading(q, K.stream(NAMES[q + 1])) then
      for at, score in ipairs(redis.call('ZMSCORE', K.due(NAMES[q + 1]), unpack(roads))) do
        if score then
          found[roads[at]] = found[roads[at]] or {}
          found[roads[at]][q] = true
        end
      end
    end
  end
  return found
end

-- Roads that were due at the same µs waited for one window, or one route, since several may have the same first way:
-- each of them is the first one at times.
local function in_turn(rows)
  local roads, run = {}, {}
  for at = 1, #rows, 2 do
    run[#run + 1] = rows[at]
    if rows[at + 1] ~= rows[at + 3] then
      for turn = 0, #run - 1 do roads[#roads + 1] = run[(now + turn) % #run + 1] end
      run = {}
    end
  end
  return roads
end

-- A road is due at that µs, for each of its priorities.
local function put_off(road, us)
  for _, name in ipairs(NAMES) do redis.call('ZADD', K.due(name), 'XX', text(us), road) end
end

-- Up to a hundred roads, behind so many that are others'; false where there may be more behind them. Those of a route
-- that is full are put off, in their order: left where they are, so many of them would hide other routes' for ever.
-- Who had its last slot is behind the others, or it would have all that follow, too.
local full = 0
local function visit_roads(name, p)
  local rows = redis.call('ZRANGEBYSCORE', K.due(name), '-inf', text(now), 'WITHSCORES', 'LIMIT', others, ROADS_A_CALL)
  local before_ = others + full
  local roads = in_turn(rows)
  local waits = lower_ones(roads, p)
  for _, road in ipairs(roads) do
    local had = taken
    local next, of = release_road(road, p, waits[road])
    if shut then return true end -- the roads stay due
    -- A slot that one priority used is gone for the others of the road, too.
    if of == 'others' then
      passed[name] = passed[name] or {}
      passed[name][road] = true
      any_passed = true
      others = others + 1
    elseif of == 'route' then
      full = full + 1
      put_off(road, next + full + (taken > had and PAGES * ROADS_A_CALL or 0))
    elseif next then
      put_off(road, math.max(next, now))
    else
      redis.call('ZREM', K.due(name), road)
    end
    if left == 1 then return true end
  end
  return others + full - before_ < ROADS_A_CALL
end

-- False where there may be more behind so many.
local function visit_pages(name, p)
  for _ = 1, PAGES do
    if visit_roads(name, p) then return true end
  end
  return false
end

-- So many roads are others' that nobody looks at each of them: some of those behind, every second other ones.
local hidden = {} -- priority → true
local function visit_hidden(name, p)
  hidden[name] = true
  local many = redis.call('ZCOUNT', K.due(name), '-inf', text(now)) - others
  local span = PAGES * ROADS_A_CALL
  if many <= 0 then return end
  others = others + math.floor(now / OTHERS_TURN) % math.ceil(many / span) * span
  visit_pages(name, p)
end

local function release_roads()
  for at, name in ipairs(NAMES) do
    local p = at - 1
    others = 0
    if is_rereading(p, K.stream(name)) then
      barred = true
    else
      if not visit_pages(name, p) and others >= PAGES * ROADS_A_CALL then visit_hidden(name, p) end
      if left == 1 or shut then return end
    end
  end
end

-- What is taken from the schedule asks for its slot afterwards: no more than there are.
local opens, step, most = gate(now)
local free = free_at(now, opens, step, most)
local capped = free and free < room
if capped then
  room = free
  if free == 0 then shut = opens end
end
-- Half each, and what one of them leaves to the other: a million retries of one moment hold up no lane. (Of an
-- odd room the larger half goes to either, by turns.)
local half = math.floor((room + now % 2) / 2)
if half > 0 then release_schedule(half) end
if not shut then release_roads() end
if not shut and taken < room then release_schedule(room - taken) end
-- From when the first of them came, not from now: who is late is not later the next time.
if capped and taken >= room and not shut then shut, left = opens + step * taken, 0 end
if not shut then more_scheduled() end
keep_turns()
keep_limits(now)
keep_slots(now)
keep_paces(now)

local next = 0
local function sooner(us) if next == 0 or us < next then next = us end end

local scheduled = redis.call('ZRANGE', K.schedule, 0, 0, 'WITHSCORES')[2]
if scheduled then sooner(tonumber(scheduled) * 1000) end
for _, name in ipairs(NAMES) do
  local theirs, many = passed[name] or {}, 0
  for _ in pairs(theirs) do many = many + 1 end
  local rows = redis.call('ZRANGE', K.due(name), 0, many, 'WITHSCORES')
  for row = 1, #rows, 2 do
    if not theirs[rows[row]] then
      local due = tonumber(rows[row + 1])
      sooner(hidden[name] and math.max(due, now + OTHERS_TURN) or due)
      break
    end
  end
end
if barred and next > 0 then next = math.max(next, now + RETRY) end
if any_passed then sooner(now + OTHERS_TURN) end
if shut and next > 0 then next = math.max(next, shut) end

-- Who keeps the watch comes at `next`: this worker, if nobody else does, or nobody as soon, or who did is late.
local function on_watch(at)
  local who, till = (redis.call('GET', K.watch) or ''):match('^(.*) (%d+)$')
  till = tonumber(till)
  if who and who ~= consumer and till <= at and till + LATE >= now then return at + BEHIND end
  if left == 1 or at == 0 then -- no room: it comes when its hand has changed
    if who == consumer then redis.call('DEL', K.watch) end
  else
    redis.call('SET', K.watch, consumer .. ' ' .. text(at))
    redis.call('PEXPIRE', K.watch, text(math.ceil((math.max(at, now) - now + LATE) / 1000)))
  end
  return at
end

next = on_watch(next)
-- Woken by the bell, and not for this worker: it does not ring for itself again, but at its next look.
if (left == 1 or any_passed and ARGV[4] == '') and redis.call('XLEN', K.bell) == 0 then
  redis.call('XADD', K.bell, '*', 'due', '1')
end
return {text(now), text(next), token, left, unpack(out)}

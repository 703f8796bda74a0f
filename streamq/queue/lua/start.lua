-- start: of what a consumer has read, the plain mails become its leases: those to be sent at once, of a lane where nothing
-- is slowed, closed or waits, that has a slot if anything limits it, with nothing noted of them and an id that is new. For
-- all others it says so, and `admit` decides. What a mail may need is asked once for all: this is what most mails pay.
-- needs: base lease index seen route slots pace limit plain
-- KEYS: {streamq}: absent clock due expiry held holds lane lease limit limits meta notes parked pauses schedule seen slots
--   stream throttled
-- ARGV: now consumer window routes left
--   left       lanes, each on a line of its own, of mails before or between these that `admit` decides: what is limited
--     of those goes there, too, since nobody overtakes in a lane; and where they may have a slot of the queue or of a
--     route, all that would, since the slot may be a more urgent one's
-- EACH: entry lane deadline seen
--   lane       its first way is one that the worker uses
--   deadline   ms, when it is too old             seen  '' or 10 bytes digest and 4 bytes content hash
-- RETURNS: now, token, then a letter for each row, in one text:
--   g  it goes, by the first way of its lane      l  lost: somebody else's, or nobody's     a  admit decides
--   c  it goes, and is one of so many transactions at once to that site
--   then opens, step, most (what bounds reading: lib/limit, `gate`), then of each that has a slot of windows which row
--   it is, from 1, and the slot's mark (lib/limit, `slot_mark`)
-- EVENTS: none

local now, consumer, window = clock(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local letters = {}
for nth = 1, (#ARGV - HEAD) / EACH do letters[nth] = 'a' end
local obstacles
ask_there(K.holds, K.notes, K.parked, K.schedule, K.held, K.limits, K.pauses, K.throttled)
if not has(K.holds) then obstacles = obstacles_in(K.pauses) end
local limits_any = has(K.limits) and not no_rules()
local is_free = obstacles and not next(obstacles) and not limits_any and not has(K.parked)
if obstacles and not is_free then
  know_routes(ARGV[4])
  for route in pairs(mine or {}) do -- what bounds reading by a pace is told by `admit`
    if obstacles[route] then obstacles['*'] = true end
  end
end
if not obstacles or obstacles['*'] or obstacles['*|*'] then
  return {text(now), 0, table.concat(letters), '0', '0', '0'}
end

local open = {} -- lane → whether nothing is in its way
local passages = {} -- lane → what its mails pass, where anything limits them
local behind = {} -- lanes of which somebody before is left to `admit`; SHARED: somebody of a lane is whose slot others want
local SHARED = '|'
local function look_at_limits(lane, way, site)
  local passage = passage_of(way, site, now)
  if #passage > 0 or passage.most then passages[lane] = passage end
end

local function leave_to_admit(lane)
  behind[lane] = true
  if passages[lane] and passages[lane].is_shared then behind[SHARED] = true end
end

local function look_at_lanes()
  local roads = {}
  for at = HEAD + 2, #ARGV, EACH do
    local lane = ARGV[at]
    if open[lane] == nil then
      local way, site = route_of(lane), site_in(lane)
      open[lane] = not (obstacles[way] or obstacles[way .. '|' .. site] or obstacles['*|' .. site] or
        obstacles[way .. '|*'])
      if limits_any then look_at_limits(lane, way, site) end
      roads[#roads + 1] = road_of(lane)
    end
  end
  if not has(K.parked) then return end
  ask_queues(roads)
  for lane in pairs(open) do open[lane] = open[lane] and not queue_of(road_of(lane)).urgency end
end

-- Up to which id an index may know a mail of a priority; where none has any it does not matter.
local indexed = has(K.schedule) or has(K.parked) or has(K.held)
local highest, raised = {}, {}
local function is_new(p, id)
  local last = highest[p] or redis.call('HGET', K.meta, 'admitted:' .. p) or '0-0'
  highest[p] = last
  if not before(last, id) then return not indexed end
  highest[p], raised[p] = id, true
  return true
end

if not is_free then look_at_lanes() end
for lane in ARGV[5]:gmatch('[^\n]+') do
  if limits_any and open[lane] == nil and lane ~= '' then look_at_limits(lane, route_of(lane), site_in(lane)) end
  leave_to_admit(lane)
end
ask_holds(consumer, 1)
local notes = said_of_all('HMGET', K.notes, 1)
local now_ms = math.floor(now / 1000)
local digests, owners, rows = {}, {}, {} -- rows: which has that digest
local left = {} -- digests of those that are not taken
local go, nth_of = {}, {} -- stream → ids; stream .. id → which row
local nth = 0
for at = HEAD + 1, #ARGV, EACH do
  local entry, known = ARGV[at], ARGV[at + 3]
  local p, id, stream = split(entry)
  nth = nth + 1
  if not held_token(stream, id, consumer) then
    letters[nth] = 'l'
  elseif (is_free or open[ARGV[at + 1]]) and not notes[entry] and tonumber(ARGV[at + 2]) > now_ms and
    not (left[1] and left[sub(known, 1, 10)]) and is_new(p, id) then
    letters[nth] = 'g'
    if known ~= '' then
      rows[#rows + 1] = nth
      digests[#rows] = sub(known, 1, 10)
      owners[#rows] = pack_id(sub(known, 11), sub(entry, 1, 1), id_parts(id))
    end
  elseif known ~= '' then -- of two mails of one id the first has it
    left[1], left[sub(known, 1, 10)] = true, true
  end
end
for place in pairs(see_all(digests, owners, now, window)) do letters[rows[place]] = 'a' end

local out = {}
local GOES = {g = true, c = true}
local function take(nth, entry, lane)
  local passage = passages[lane]
  if not passage then return end
  local slot
  if not behind[lane] and not (passage.is_shared and behind[SHARED]) then
    slot = take_passage(passage, lane, now, consumer, entry)
  end
  if not slot then
    letters[nth] = 'a'
    return leave_to_admit(lane)
  end
  if passage.most then letters[nth] = 'c' end
  if slot ~= '' then
    out[#out + 1] = nth
    out[#out + 1] = slot
  end
end

nth = 0
for at = HEAD + 1, #ARGV, EACH do
  nth = nth + 1
  local entry, lane = ARGV[at], ARGV[at + 1]
  if letters[nth] == 'a' then leave_to_admit(lane) end
  if letters[nth] == 'g' then take(nth, entry, lane) end
  if GOES[letters[nth]] then
    local _, id, stream = split(entry)
    listed(go, stream, id)
    nth_of[stream .. id] = nth
  end
end
local token = 0
if next(go) then token = new_token() end
for stream, ids in pairs(go) do
  for _, id in ipairs(stamp_all(stream, ids, consumer, token)) do
    local nth = nth_of[stream .. id]
    local at = HEAD + 1 + (nth - 1) * EACH
    if letters[nth] == 'c' then
      slot_left(passages[ARGV[at + 1]].target, consumer, ARGV[at])
    end
    letters[nth] = 'l' -- somebody deleted its entry: whoever looks after deadlines finds that it is gone
    redis.call('ZADD', K.expiry, text(now_ms), ARGV[at])
  end
end
for p in pairs(raised) do redis.call('HSET', K.meta, 'admitted:' .. p, highest[p]) end
keep_limits(now)
keep_slots(now)
local opens, step, most = 0, 0, 0
if limits_any then opens, step, most = gate(now) end
return {text(now), token, table.concat(letters), text(opens), text(step), text(most), unpack(out)}

-- turn: leased mails that have no slot yet, or whose slot ran out before their MAIL, ask for one. Nothing moves here:
-- what is to wait elsewhere its worker settles (`park`).
-- needs: base lease child notes route slots pace limit
-- KEYS: {streamq}: absent clock due holds limit limits meta pauses slots stream throttled
-- ARGV: now consumer routes
-- EACH: entry token lane slot way
--   slot       the mark of the one that it had, '' for none: given back, where that goes
--   way        '<route>|<site>' where it is one of so many transactions at once there: left, unless it goes there; or ''
-- RETURNS: now, opens, step, most (what bounds reading: lib/limit, `gate`), then per row: status, way, slot, as admit
--   status     go   wait (the queue, or the only route, has no slot)
--     park (its site has none, or no way is open, or an operator has said something)   lost (somebody else's lease)
-- EVENTS: none

local given, consumer = ARGV[1], ARGV[2]
local now = clock(given)
local out = {}
know_routes(ARGV[3])
ask_holds(consumer, 1)

for at = #ARGV - EACH + 1, HEAD + 1, 0 - EACH do give_back(ARGV[at + 3], now) end

local function turn_of(entry, token, lane)
  local _, id, stream = split(entry)
  if not owns(stream, id, consumer, token) then return 'lost' end
  if has(K.holds) and intent_of(entry) then return 'park' end
  local next, way, slot = take_slot(lane, now, consumer, entry)
  if next == 0 then return 'go', way, slot end
  return stops_reading(way) and 'wait' or 'park'
end

for entry, token, lane, _, had in each() do
  local status, way, slot = turn_of(entry, token, lane)
  if had ~= '' and way ~= had then slot_left(had, consumer, entry) end
  out[#out + 1] = status
  out[#out + 1] = way or ''
  out[#out + 1] = slot or ''
end
keep_limits(now)
keep_slots(now)
keep_paces(now)
local opens, step, most = gate(now)
return {text(now), text(opens), text(step), text(most), unpack(out)}

-- turn: leased mails that have no slot yet, or whose slot ran out before their MAIL, ask for one. Nothing moves here:
-- what is to wait elsewhere its worker settles (`park`).
-- needs: base lease child notes route slots pace limit
-- KEYS: {streamq}: absent clock due holds limit limits meta parked pauses slots stream throttled
-- ARGV: now consumer routes
-- EACH: entry token lane slot way
--   slot       the mark of the one that it had, '' for none: given back, where that goes
--   way        the route on which it had it, or '<route>|<site>' where it is one of so many transactions at once
--     there: left, unless it goes there; '' where it had none yet
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

-- A probe that is late, since its connection had to be opened: what closes the route is that it goes. For itself it is
-- open, or one whose connection takes longer than a slot lasts would find out nothing, ever.
local function as_it_was(way, token)
  local state = route_state(way)
  if state.down == 0 or tonumber(token) <= state.mark then return nil end
  local till = state.till
  state.till, state.down = 0, state.down - 1
  return function() state.till, state.down = till, state.down + 1 end
end

local function turn_of(entry, token, lane, slot, had)
  local _, id, stream = split(entry)
  if not owns(stream, id, consumer, token) then return 'lost' end
  if has(K.holds) and intent_of(entry) then return 'park' end
  local closed_again = slot ~= '' and had ~= '' and as_it_was(route_of(had), token)
  local next, way, mark = take_slot(lane, now, consumer, entry)
  if next == 0 then return 'go', way, mark end
  if closed_again then closed_again() end
  return stops_reading(way) and 'wait' or 'park'
end

for entry, token, lane, given_back, had in each() do
  local status, way, slot = turn_of(entry, token, lane, given_back, had)
  if site_in(had) and way ~= had then slot_left(had, consumer, entry) end
  out[#out + 1] = status
  out[#out + 1] = way or ''
  out[#out + 1] = slot or ''
end
keep_limits(now)
keep_slots(now)
keep_paces(now)
local opens, step, most = gate(now)
return {text(now), text(opens), text(step), text(most), unpack(out)}

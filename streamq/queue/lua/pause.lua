-- pause: an operator closes routes, or opens them again. Nothing of it hangs on a worker.
-- needs: base event route outcome
-- KEYS: {streamq}: absent bell clock due events limit meta pauses stream
-- ARGV: now verb till hold reason
--   verb   pause, resume          till  pause: µs when it ends by itself, 0 for never
--   hold   1: its mails wait for it, though another way may be open      reason  the operator's words, '' for none
-- EACH: route
-- RETURNS: per row: paused, resumed, open (there was nothing to resume)
-- EVENTS: route.paused route.resumed

local now, verb, till, hold, reason = clock(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1', ARGV[5]
local out = {}
local verb_of = {}

local function say(kind, route, known)
  known.route = route
  event(kind, route, '', route .. '.' .. text(now), now, json(known):sub(2, -2))
end

function verb_of.pause(route)
  local state = route_state(route)
  state.asked = {till = till > 0 and till or FOREVER, hold = hold, reason = reason, since = now}
  keep_route(route)
  wake(route, now) -- what has another way goes there
  local ends = till > 0 and math.floor(till / 1000) or nil
  say('route.paused', route, {class = 'operator', reason = reason ~= '' and reason or nil, ['until'] = ends})
  return 'paused'
end

-- A failure is forgotten, too: an operator who says `resume` has mended it.
function verb_of.resume(route)
  local state = route_state(route)
  if not state.asked and state.down == 0 then return 'open' end
  local class = state.asked and 'operator' or state.class
  state.asked = nil
  forgive(route, 0)
  if not route_up(route, now) then
    keep_route(route)
    wake(route, now)
  end
  say('route.resumed', route, {class = class, reason = 'by an operator'})
  return 'resumed'
end

for route in each() do out[#out + 1] = verb_of[verb](route) end
keep_records()
if redis.call('XLEN', K.bell) == 0 then redis.call('XADD', K.bell, '*', 'due', '1') end
return out

-- pause: an operator closes routes, or sites, or opens them again. Nothing of it hangs on a worker.
-- needs: base event route outcome site
-- KEYS: {streamq}: absent bell clock due ends events limit meta parked pauses stream
-- ARGV: now verb till hold reason
--   verb   pause, resume          till  pause: µs when it ends by itself, 0 for never
--   hold   1: the mails of a route wait for it, though another way is open      reason  the operator's words, '' for none
-- EACH: target
--   target  a route, '<route>|<site>', or '*|<site>' for all routes
-- RETURNS: per row: paused, resumed, open (there was nothing to resume)
-- EVENTS: route.paused route.resumed site.paused site.resumed

local now, verb, till, hold, reason = clock(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1', ARGV[5]
local ends = till > 0 and math.floor(till / 1000) or nil
local out = {}
local verb_of = {}

local function say(kind, target, known)
  known.route, known.site = target:match('^[^|]*'), site_in(target)
  event(kind, known.site or target, '', target .. '.' .. text(now), now, json(known):sub(2, -2))
end

function verb_of.pause(target)
  local kind = 'route.paused'
  if site_in(target) then
    kind = 'site.paused'
    close_site(target, now, till > 0 and till or FOREVER, reason)
  else
    local state = route_state(target)
    state.asked = {till = till > 0 and till or FOREVER, hold = hold, reason = reason, since = now}
    keep_route(target)
    wake(target, now) -- what has another way goes there
  end
  say(kind, target, {class = 'operator', reason = reason ~= '' and reason or nil, ['until'] = ends})
  return 'paused'
end

-- A failure is forgotten, too: an operator who says `resume` has mended it. nil where it was open, else the class.
local function reopen(route)
  local state = route_state(route)
  if not state.asked and state.down == 0 then return nil end
  local class = state.asked and 'operator' or state.class
  state.asked = nil
  forgive(route, 0)
  if not route_up(route, now) then
    keep_route(route)
    wake(route, now)
  end
  return class
end

function verb_of.resume(target)
  local kind, class = 'route.resumed', nil
  if site_in(target) then
    kind, class = 'site.resumed', open_site(target, now) and 'operator'
  else
    class = reopen(target)
  end
  if not class then return 'open' end
  say(kind, target, {class = class, reason = 'by an operator'})
  return 'resumed'
end

for target in each() do out[#out + 1] = verb_of[verb](target) end
keep_records()
if redis.call('XLEN', K.bell) == 0 then redis.call('XADD', K.bell, '*', 'due', '1') end
return out

-- route: whether a way out is open. Of one that is not, `pauses` says why: it failed, and its next probe has a time; or
-- an operator paused it, or a site there. A lane begins with its ways, `main>backup|example.net`: its mails take the
-- first that is open. So what is parked when a route goes down needs no visit: the next slot of its lane is one of
-- another way.
-- needs: base

local PROBE_FIRST, PROBE_MOST = 1000000, 60000000 -- µs
local HINT_MOST = 14400000000 -- µs, however long a server says to wait
local LOOK = 60000000 -- µs: a lane of closed ways is visited again then, if nothing wakes it before
local OTHERS_TURN = 1000000 -- µs: what this worker does not take now is the others'; it looks again then
local FOREVER = 9000000000000000 -- µs: a pause without an end
local LANES_WOKEN = 1000 -- of a priority, in one script

local routes = {} -- route → its state
local mine -- route → true: this worker uses it now; false: not now; nil: it knows none of that name. nil: it did not say

-- Comma list; '-' before a route that the worker knows and does not use now.
local function know_routes(listed)
  if listed == '' then return end
  mine = {}
  for dash, route in listed:gmatch('(%-?)([^,]+)') do mine[route] = dash == '' end
end

local function route_of(lane) return lane:match('^[^>|]*') end -- the first of its ways

local function site_in(lane) return lane:match('|([^/]*)') end

local CLOSED_FEW = 100 -- fields of `pauses` that are read at once; of more each is asked for where it matters
local shut = {sites = {}} -- all: field → JSON, false where there are many; sites: '<route>|<site>' → µs
local function closures_of(...)
  if shut.all == nil then
    -- Who has asked for several keys at once knows already that this one is not there.
    local many = there[K.pauses] == false and 0 or redis.call('HLEN', K.pauses)
    shut.all = many <= CLOSED_FEW and (many > 0 and info(redis.call('HGETALL', K.pauses)) or {})
  end
  if not shut.all then return redis.call('HMGET', K.pauses, ...) end
  local found = {}
  for at, field in ipairs({...}) do found[at] = shut.all[field] or false end
  return found
end

-- till: µs up to which nothing goes; down: probes that failed in a row, class: of what, mark: no lease up to this one
-- was a probe; asked: {till, hold, reason}: an operator's pause
local function route_state(route)
  local state = routes[route]
  if not state then
    local found = closures_of(route)[1]
    state = found and cjson.decode(found) or {}
    state.till, state.down, state.mark = tonumber(state.till or 0), state.down or 0, state.mark or 0
    if state.asked then state.asked.till = tonumber(state.asked.till) end
    routes[route] = state
  end
  return state
end

local function keep_route(route)
  local state = routes[route]
  if state.down == 0 and not state.asked then return redis.call('HDEL', K.pauses, route) end
  local kept = {}
  if state.down > 0 then
    for _, name in ipairs({'down', 'class', 'of', 'reply', 'mark'}) do kept[name] = state[name] end
    kept.till, kept.since = text(state.till), text(state.since)
  end
  if state.asked then
    local asked = state.asked
    kept.asked = {till = text(asked.till), hold = asked.hold, reason = asked.reason, since = text(asked.since)}
  end
  redis.call('HSET', K.pauses, route, cjson.encode(kept))
end

-- µs up to which nothing goes this way, whoever said so; whether its mails wait for it all the same
local function closed_until(route, now)
  local state = route_state(route)
  if state.asked and state.asked.till > now then return math.max(state.asked.till, state.till), state.asked.hold end
  return state.till, false
end

-- µs until which an operator closed that site, there or on all routes; 0 where it is open.
local function site_closed(way, site, now)
  local target = way .. '|' .. site
  local till = shut.sites[target]
  if not till then
    till = 0
    for _, found in ipairs(closures_of(target, '*|' .. site)) do
      if found then till = math.max(till, tonumber(cjson.decode(found).asked.till)) end
    end
    shut.sites[target] = till
  end
  return till > now and till or 0
end

-- The first of the lane's ways that is open, and where its site is; else nil, and the µs at which it may be looked at
-- again.
local function open_way(lane, now)
  local soonest = now + LOOK
  local site = site_in(lane)
  for way in lane:match('^[^|]*'):gmatch('[^>]+') do
    local till, hold = closed_until(way, now)
    if till <= now and site ~= '' then till = site_closed(way, site, now) end
    if till <= now then return way end
    soonest = math.min(soonest, till)
    if hold then break end
  end
  return nil, soonest
end

-- Its lanes are due now, or (`elsewhere`) those of them that have another way: the next thousand of each priority; were
-- there more, they come at their own time (LOOK).
local function wake(route, now, elsewhere)
  for _, name in ipairs(NAMES) do
    local lanes = redis.call('ZRANGEBYSCORE', K.due(name), '(' .. text(now), '+inf', 'LIMIT', 0, LANES_WOKEN)
    local command = {'ZADD', K.due(name)}
    for _, lane in ipairs(lanes) do
      local ways = lane:match('^[^|]*')
      if ('>' .. ways .. '>'):find('>' .. route .. '>', 1, true) and not (elsewhere and ways == route) then
        command[#command + 1] = text(now)
        command[#command + 1] = lane
      end
    end
    if #command > 2 then redis.call(unpack(command)) end
  end
end

-- A route that failed before MAIL, or that says that our account is in trouble: nothing goes until its probe. True
-- where it was up until now. A failure that was under way when another was noted changes nothing, but for a hint.
-- why: {class, reply, of, hint (ms: the server's own word)}
local function route_down(route, now, why)
  local state = route_state(route)
  local hint = now + math.min((why.hint or 0) * 1000, HINT_MOST)
  local first = state.down == 0
  if first then
    state.since, state.mark = now, tonumber(redis.call('GET', K.lease) or '0')
  elseif state.till > now then
    if hint > state.till then
      state.till = hint
      keep_route(route)
    end
    return false
  end
  local wait = math.min(PROBE_FIRST * 2 ^ math.min(state.down, 10), PROBE_MOST)
  state.till, state.down = math.max(now + wait, hint), state.down + 1
  state.class, state.of, state.reply = why.class or 'unreachable', why.of, why.reply
  keep_route(route)
  if first then wake(route, now, true) end
  return first
end

-- This mail is the probe: the next one, later still, only if no good word comes of it.
local function probing(route, now)
  local state = routes[route]
  state.till = now + math.min(PROBE_FIRST * 2 ^ math.min(state.down, 10), PROBE_MOST)
  state.down = state.down + 1
  keep_route(route)
end

-- It spoke to us, or an operator says that it is well. False where it was not down. What an operator paused stays so.
local function route_up(route, now)
  local state = route_state(route)
  if state.down == 0 then return false end
  state.till, state.down, state.class = 0, 0, nil
  keep_route(route)
  wake(route, now)
  return true
end

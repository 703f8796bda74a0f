-- limit: strict windows per lane, and the pause of a route that is down.
-- Shortened-tolerance GCRA, one number a window: τ = W/20 (at most 2 s), T = (W+τ)/N; admit iff now ≥ TAT − τ,
-- then TAT = max(now, TAT) + T. After N admissions from t₀ TAT ≥ t₀ + W + τ, so the next is at t₀ + W or later:
-- never more than N in any window, of any phase. Usual GCRA with burst N lets nearly 2 N through.
-- needs: base

local windows_of = {} -- lane → list of {n, w, tau, t, tat}
local NONE = {}
local FEW = 100 -- rules that are read at once; of more each lane's are asked for
local rules_set -- name → windows; false where there are many
local function rules_for(lane, route, site)
  if rules_set == nil then
    local many = redis.call('HLEN', K.limits)
    rules_set = many <= FEW and (many > 0 and info(redis.call('HGETALL', K.limits)) or NONE)
  end
  if rules_set == NONE then return nil end
  if rules_set then
    return rules_set[lane] or rules_set['*|' .. site] or rules_set[route .. '|*'] or rules_set['*|*']
  end
  local rules = redis.call('HMGET', K.limits, lane, '*|' .. site, route .. '|*', '*|*')
  return rules[1] or rules[2] or rules[3] or rules[4]
end
local routes = {} -- route → {until_us, down}

-- '50:1000000,60000:3600000000' (mails : µs) as `limits` holds it, most specific first
local function windows(lane)
  local found = windows_of[lane]
  if found then return found end
  found = {}
  windows_of[lane] = found
  local route, site = lane:match('^([^|]*)|(.*)$')
  local rule = rules_for(lane, route, site)
  if not rule or rule == '' then return found end
  local names = {}
  for n, w in rule:gmatch('(%d+):(%d+)') do
    n, w = tonumber(n), tonumber(w)
    local tau = math.min(math.floor(w / 20), 2000000)
    found[#found + 1] = {w = w, tau = tau, t = (w + tau) / n}
    names[#names + 1] = text(w)
  end
  local states = redis.call('HMGET', K.limit(lane), unpack(names))
  for at, window in ipairs(found) do
    local tat, t = (states[at] or ''):match('^(%d+):([%d.]+)$')
    window.tat = tonumber(tat or 0)
    window.before = tonumber(t or window.t)
  end
  return found
end

local function route_of(lane) return lane:match('^[^|]*') end

-- until: µs up to which nothing goes this way; down: probes that failed in a row
local function route_state(route)
  if not routes[route] then
    local state = redis.call('HMGET', K.limit(route), 'until', 'down')
    routes[route] = {till = tonumber(state[1] or 0), down = tonumber(state[2] or 0)}
  end
  return routes[route]
end

local PROBE_FIRST, PROBE_MOST = 1000000, 60000000 -- µs

local function set_route(route, till, down, now)
  routes[route] = {till = till, down = down}
  redis.call('HSET', K.limit(route), 'until', text(till), 'down', down)
  redis.call('PEXPIRE', K.limit(route), text(math.max(till - now, 0) / 1000 + 3600000))
end

-- A route that failed before MAIL: nothing goes until its probe. A failure that was under way when another was
-- noted changes nothing.
local function route_down(route, now)
  local state = route_state(route)
  if state.till > now and state.down > 0 then return state.till end
  local wait = math.min(PROBE_FIRST * 2 ^ state.down, PROBE_MOST)
  set_route(route, now + wait, state.down + 1, now)
  return now + wait
end

-- A route that spoke to us is up; its lanes are due now. Lanes: as many as it has, a few bytes each.
local function route_up(route, now)
  if route_state(route).down == 0 then return false end
  routes[route] = {till = 0, down = 0}
  redis.call('DEL', K.limit(route))
  for _, name in ipairs(NAMES) do
    local lanes = redis.call('ZRANGEBYSCORE', K.due(name), '(' .. text(now), '+inf', 'LIMIT', 0, 1000)
    for _, lane in ipairs(lanes) do
      if route_of(lane) == route then redis.call('ZADD', K.due(name), text(now), lane) end
    end
  end
  return true
end

-- The lane's windows; a changed limit keeps its history.
local function windows_at(lane, now)
  local all = windows(lane)
  for _, window in ipairs(all) do
    if window.before ~= window.t then
      window.tat = now + math.max(window.tat - now, 0) * window.t / window.before
      window.before = window.t
      window.changed = true
    end
  end
  return all
end

-- 0: a slot was taken. Else: µs at which the next one comes; nothing was taken.
local function take_slot(lane, now)
  local route = route_of(lane)
  local state = route_state(route)
  if state.till > now then return state.till end
  local all = windows_at(lane, now)
  local next = 0
  for _, window in ipairs(all) do
    if now < window.tat - window.tau then next = math.max(next, window.tat - window.tau) end
  end
  if next > 0 then return math.ceil(next) end
  for _, window in ipairs(all) do
    window.tat = math.max(now, window.tat) + window.t
    window.changed = true
  end
  if state.down > 0 then -- this mail is the probe: the next one, later still, only if no good word comes of it
    set_route(route, now + math.min(PROBE_FIRST * 2 ^ state.down, PROBE_MOST), state.down + 1, now)
  end
  return 0
end

-- Without taking: 0, or µs at which a slot comes.
local function next_slot(lane, now)
  local state = route_state(route_of(lane))
  local next = state.till > now and state.till or 0
  for _, window in ipairs(windows_at(lane, now)) do
    if now < window.tat - window.tau then next = math.max(next, window.tat - window.tau) end
  end
  return math.ceil(next)
end

-- Once, at a script's end.
local function keep_limits(now)
  for lane, all in pairs(windows_of) do
    local fields, last = {}, 0
    for _, window in ipairs(all) do
      if window.changed then
        fields[#fields + 1] = text(window.w)
        fields[#fields + 1] = text(math.ceil(window.tat)) .. ':' .. string.format('%.17g', window.t)
        last = math.max(last, window.tat + window.w)
      end
    end
    if #fields > 0 then
      redis.call('HSET', K.limit(lane), unpack(fields))
      redis.call('PEXPIRE', K.limit(lane), text(math.ceil((last - now) / 1000) + 1000))
    end
  end
end

-- limit: strict windows per route and site, and who takes a slot of which way.
-- Shortened-tolerance GCRA, one number a window: τ = W/20 (at most 2 s), T = (W+τ)/N; admit iff now ≥ TAT − τ,
-- then TAT = max(now, TAT) + T. After N admissions from t₀ TAT ≥ t₀ + W + τ, so the next is at t₀ + W or later:
-- never more than N in any window, of any phase. Usual GCRA with burst N lets nearly 2 N through.
-- How fast a route or a site takes mail, as its replies taught it (pace), is asked and counted with them.
-- needs: base route pace

local windows_of = {} -- '<route>|<site>' → list of {n, w, tau, t, tat}
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

-- Its windows; a changed limit keeps its history.
local function windows_at(target, now)
  local all = windows(target)
  for _, window in ipairs(all) do
    if window.before ~= window.t then
      window.tat = now + math.max(window.tat - now, 0) * window.t / window.before
      window.before = window.t
      window.changed = true
    end
  end
  return all
end

-- 0 and the way: a slot of it was taken. Else: µs at which the next one comes, and nothing was taken; true where it is
-- another worker that may take it now.
local function take_slot(lane, now)
  local way, opens = open_way(lane, now)
  if not way then return opens end
  if mine and mine[way] == false then return now, nil, true end
  local target = way .. '|' .. site_in(lane)
  local all = windows_at(target, now)
  local next = math.max(pace_opens(way, now), pace_opens(target, now))
  for _, window in ipairs(all) do
    if now < window.tat - window.tau then next = math.max(next, window.tat - window.tau) end
  end
  if next > 0 then return math.ceil(next) end
  for _, window in ipairs(all) do
    window.tat = math.max(now, window.tat) + window.t
    window.changed = true
  end
  pace_takes(way, now)
  pace_takes(target, now)
  if route_state(way).down > 0 then probing(way, now) end
  return 0, way
end

-- Without taking: 0, or µs at which a slot comes.
local function next_slot(lane, now)
  local way, opens = open_way(lane, now)
  if not way then return opens end
  local target = way .. '|' .. site_in(lane)
  local next = math.max(pace_opens(way, now), pace_opens(target, now))
  for _, window in ipairs(windows_at(target, now)) do
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

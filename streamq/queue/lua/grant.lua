-- grant: a worker's share of the connections of its routes. What it is granted is a lease that it renews: a share of a
-- worker that is gone is free when it runs out. The sum of all grants is never more than the route has.
-- SHARES   Each gets what it wants up to a level that is the same for all; what nobody wants is lent out evenly, so
--          that a burst waits for nobody; it goes back at the next renewal after somebody wants it.
-- A pause whose time is over ends here: every worker calls each second.
-- needs: base event route site
-- KEYS: {streamq}: absent clock due ends events grants limits meta parked pauses stream
-- ARGV: now consumer ttl
--   ttl    ms; 0: it gives back what it has
-- EACH: route most want open
--   most   connections of the route, over all workers      want  how many it has use for
--   open   how many it has open
-- RETURNS: now, then per row: allowance, closed (µs until which the route takes nothing, 0 if open)
-- EVENTS: route.resumed site.resumed

local now, consumer, ttl = clock(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local out = {text(now)}

-- How many the `at`-th of `names` gets.
local function share_of(consumer_, names, wants, most)
  table.sort(names, function(a, b)
    if wants[a] ~= wants[b] then return wants[a] < wants[b] end
    return a < b
  end)
  local left, mine_ = most, 0
  for at, name in ipairs(names) do
    local given = math.min(wants[name], math.floor(left / (#names - at + 1)))
    left = left - given
    if name == consumer_ then mine_ = given end
  end
  table.sort(names)
  for at, name in ipairs(names) do
    if name == consumer_ then mine_ = mine_ + math.floor(left / #names) + (at <= left % #names and 1 or 0) end
  end
  return mine_
end

local function grant(route, most, want, open)
  local key = K.grants(route)
  if ttl == 0 then
    redis.call('HDEL', key, consumer)
    return 0
  end
  local wants, names, taken, had = {[consumer] = want}, {consumer}, 0, 0
  local flat = redis.call('HGETALL', key)
  for at = 1, #flat, 2 do
    local name = flat[at]
    local granted, wanted, till = flat[at + 1]:match('^(%d+) (%d+) (%d+)$')
    if tonumber(till) <= now then
      redis.call('HDEL', key, name)
    elseif name == consumer then
      had = tonumber(granted)
    else
      names[#names + 1] = name
      wants[name] = tonumber(wanted)
      taken = taken + tonumber(granted)
    end
  end
  local allowed = math.max(0, math.min(share_of(consumer, names, wants, most), most - taken))
  local kept = math.max(allowed, math.min(open, had)) -- until it has closed them
  redis.call('HSET', key, consumer, kept .. ' ' .. want .. ' ' .. text(now + ttl * 1000))
  redis.call('PEXPIRE', key, ttl * 2)
  return allowed
end

local function end_of_pause(route)
  local state = route_state(route)
  if not state.asked or state.asked.till > now then return end
  event('route.resumed', route, '', route .. '.' .. text(state.asked.since), now,
    json({route = route, class = 'operator', reason = 'its time is over'}):sub(2, -2))
  state.asked = nil
  keep_route(route)
  wake(route, now)
end

local function end_of_sites_pause(target)
  local since = open_site(target, now)
  if not since then return end
  event('site.resumed', site_in(target), '', target .. '.' .. text(since), now, json({route = target:match('^[^|]*'),
    site = site_in(target), class = 'operator', reason = 'its time is over'}):sub(2, -2))
end

for _, target in ipairs(redis.call('ZRANGEBYSCORE', K.ends, '-inf', text(now), 'LIMIT', 0, 100)) do
  end_of_sites_pause(target)
end
-- What an operator set stands over the workers' settings.
local function most_of(route, most)
  local set = (redis.call('HGET', K.limits, route) or ''):match(';c(%d+)')
  return tonumber(set or most)
end

for route, most, want, open in each() do
  end_of_pause(route)
  local till = closed_until(route, now)
  out[#out + 1] = grant(route, most_of(route, most), tonumber(want), tonumber(open))
  out[#out + 1] = till > now and text(till) or '0'
end
return out

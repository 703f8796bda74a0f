-- grant: a worker's share of the connections of its routes. What it is granted is a lease that it renews: a share of a
-- worker that is gone is free when it runs out. The sum of all grants is never more than the route has.
-- SHARES   Each gets what it wants up to a level that is the same for all; what nobody wants is lent out evenly, so
--          that a burst waits for nobody; it goes back at the next renewal after somebody wants it. Nothing is kept
--          for those who have none while the number grows: they find more when they ask again.
-- LEARNT   How many there are is what the server was seen to take (lib/learnt.lua), at most what is configured. Workers
--          tell what they saw: connections that stand, that were refused, mails that one bore.
-- A pause whose time is over ends here: every worker calls each second.
-- needs: base event route site pace learnt
-- KEYS: {streamq}: absent clock due ends events grants limit limits meta parked pauses stream throttled
-- ARGV: now consumer ttl
--   ttl    ms; 0: it gives back what it has
-- EACH: route most mails want open works lost refused worked bore full sent
--   most     connections of the route, over all workers    want  how many it has use for
--   mails    of a connection, at most                      open  how many it has open, or is opening
--   works    of those, that stand                          lost  1: it finds the route down
--   refused  connections that were not let in since it last called
--   worked   the most of its own that stood when that was
--   bore     mails after which the server would take no more, 0 if it did not say so since
--   full     connections that have since had as many as they may
--   sent     mails that were taken since
-- RETURNS: now, then per row: allowance, closed (µs until which the route takes nothing, 0 if open), elsewhere
--   (connections of other workers that stand), mails (of a connection from now on), careful (1: some were refused:
--   they are opened one by one)
-- EVENTS: route.resumed site.resumed

local now, consumer, ttl = clock(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local out = {text(now)}

-- How many it gets of `most`. Of those that want the same who has some comes last, where more is left: else a route of
-- few connections would wander.
local function share_of(consumer_, names, wants, has, most)
  table.sort(names, function(a, b)
    if wants[a] ~= wants[b] then return wants[a] < wants[b] end
    if has[a] ~= has[b] then return has[b] end
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

local function grant(route, most, mails, want, open, works, lost, refused, worked, bore, full, sent)
  local key = K.grants(route)
  if ttl == 0 then
    redis.call('HDEL', key, consumer)
    return 0, 0, mails, 0
  end
  local wants, names, has, taken, had, elsewhere, lent = {[consumer] = want}, {consumer}, {}, 0, 0, 0, 0
  local unreserved = {[consumer] = want} -- of others only what they have
  local packed
  local flat = redis.call('HGETALL', key)
  for at = 1, #flat, 2 do
    local name = flat[at]
    local granted, wanted, till, stand = flat[at + 1]:match('^(%d+) (%d+) (%d+) (%d+)$')
    if name == LEARNT then
      packed = flat[at + 1]
    elseif tonumber(till) <= now then
      redis.call('HDEL', key, name)
    elseif name == consumer then
      had = tonumber(granted)
    else
      has[name] = tonumber(granted) > 0
      names[#names + 1] = name
      wants[name] = tonumber(wanted)
      unreserved[name] = math.min(tonumber(wanted), tonumber(granted))
      taken = taken + tonumber(granted)
      elsewhere = elsewhere + tonumber(stand)
      lent = lent + math.max(0, tonumber(granted) - math.max(tonumber(wanted), tonumber(stand)))
    end
  end
  has[consumer] = had > 0
  if want <= had or works < had then lent = 0 end -- has use for no more, or for what it has yet
  local known = learnt_from(packed)
  local cap = learn_connections(known, now, most, works + elsewhere, lent, refused, worked + elsewhere, lost,
    sent)
  local each_bears = learn_mails(known, now, mails, bore, full)
  local packs = learnt_packed(known)
  if packs ~= packed then redis.call('HSET', key, LEARNT, packs) end
  if is_ramp(known, cap, most) then wants = unreserved end
  local allowed = math.max(0, math.min(share_of(consumer, names, wants, has, cap), cap - taken))
  local state = pace_at(route)
  if is_wary(known, state and state.last, now) then -- what stands is worth more than that all have the same
    allowed = math.max(allowed, math.min(open, math.max(0, cap - taken)))
    if not known.mails then each_bears = each_bears * OUTLIVES end
  end
  local kept = math.max(allowed, open) -- until it has closed them
  redis.call('HSET', key, consumer, kept .. ' ' .. want .. ' ' .. text(now + ttl * 1000) .. ' ' .. works)
  redis.call('PEXPIRE', key, math.max(LEARNT_LASTS, ttl * 2))
  return allowed, elsewhere, each_bears, known.cut and 1 or 0
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

for route, most, mails, want, open, works, lost, refused, worked, bore, full, sent in each() do
  end_of_pause(route)
  local till = closed_until(route, now)
  local allowed, elsewhere, each_bears, careful = grant(route, most_of(route, most), tonumber(mails), tonumber(want),
    tonumber(open), tonumber(works), lost == '1', tonumber(refused), tonumber(worked), tonumber(bore), tonumber(full), tonumber(sent))
  out[#out + 1] = allowed
  out[#out + 1] = till > now and text(till) or '0'
  out[#out + 1] = elsewhere
  out[#out + 1] = each_bears
  out[#out + 1] = careful
end
return out

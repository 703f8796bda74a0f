-- pace: how fast a target takes mail, as far as its replies taught it. A target is a route, `main`, or a site by a route,
-- `main|example.net`. Field `pace` of `limit:<target>`, a JSON object, times in µs as texts; absent: nothing slows it.
-- What a reply changes in it is decided in throttle. This part keeps it, and asks it before a mail goes.
--   rate    mails per second          tat    as of a window (limit): when the next one fits
--   till    nothing goes before       run    refusals in a row with nothing taken between; above 0 a probe goes alone
--   mark    µs: what got its slot by then did not go at this pace
--   good, bad    outcomes since the last cut       count, since   all of them since the pace last changed, and when
--   peak    the most per second that was ever taken
--   top, safe   the pace at which it refused; one that held (the last), 0 none     before: the pace of before the cut
--   under   of `top`: so much of it is gone back to quickly
--   cut, last, prior, next    µs of the last cut, of the last refusal, of the one before, of the next step up
--   met     of those that were refused, how many in the run that ended last        lag   µs from a slot to its verdict, of late
--   step, wait, patience   size of that step; µs until it, and what a refusal makes of that
--   rest    µs of the pause that mended it            fell   µs when the last cut was made, and what it cost begins
--   hint    µs before which it asked for nothing
--   levels, start      of a series of cuts: what was taken and refused at each of its paces; the pace that it began at
--   boxed   it was turned away before MAIL soon after a refusal
--   noise, deaf        share of refusals that no pace changes, -1: it was found not to be one; µs until which that is
--             believed; trial: it is being tried out
--   began, class, reply, words, told   what is said of it       shares, leasts   of the first refusals: worker → what it
--             took, and what that is at least; least: of all, 0 once it was used          at_work   µs: it takes mail since
-- `throttled` (zset) holds the targets that have one, by the µs until which it is of interest: where it is not there, a
-- script pays one EXISTS for all this. It is off where no worker has published a policy (`meta`, field `adapt`).
-- needs: base

-- A pace is kept by the second. Evenly, so that no window of a server's sees more than 2 % above it, or one mail.
local PACE = {
  w = 1000000, tau = 20000, slack = 500000, few = 100, -- µs: MAIL goes no later than slack; targets in one look
  times = {'tat', 'till', 'hint', 'mark', 'since', 'cut', 'last', 'next', 'wait', 'patience', 'rest', 'fell', 'deaf', 'began',
    'told', 'at_work', 'prior'},
}

-- of: target → its state, false where nothing slows it; changed: target → true; listed: target → true, false where there
-- are many and each is asked for; policy: the settings, false where there are none
local pace = {of = {}, changed = {}}

local function adapt()
  if pace.policy == nil then
    local found = redis.call('HGET', K.meta, 'adapt')
    pace.policy = found and cjson.decode(found) or false
  end
  return pace.policy
end

local function is_slowed(target)
  if not has(K.throttled) or not adapt() then return false end
  if pace.listed == nil then
    pace.listed = {}
    local found = redis.call('ZRANGE', K.throttled, 0, PACE.few)
    for _, name in ipairs(found) do pace.listed[name] = true end
    if #found > PACE.few then pace.listed = false end
  end
  return not pace.listed or pace.listed[target]
end

-- Its state, or false.
local function pace_at(target)
  local state = pace.of[target]
  if state == nil then
    local found = is_slowed(target) and redis.call('HGET', K.limit(target), 'pace')
    state = found and cjson.decode(found) or false
    if state then
      for _, name in ipairs(PACE.times) do state[name] = tonumber(state[name] or 0) end
      state.under, state.lag, state.met = state.under or 1, state.lag or 0, state.met or 0 -- an older version's
    end
    pace.of[target] = state
  end
  return state
end

-- 0, or the µs before which no mail fits.
local function pace_opens(target, now)
  local state = pace_at(target)
  if not state then return 0 end
  local opens = math.max(state.till, state.tat - PACE.tau)
  return opens > now and math.ceil(opens) or 0
end

-- µs from one mail to the next.
local function pace_step(state) return (PACE.w + PACE.tau) / state.rate end

-- A mail goes; true where there is a pace. While it answers with refusals alone that one is a probe, and the next goes after it was judged, or
-- after twice the time (its worker died).
local function pace_takes(target, now)
  local state = pace_at(target)
  if not state then return false end
  state.tat = math.max(now, state.tat) + pace_step(state)
  if state.run > 0 then state.till = now + math.min(2 * state.rest * 2 ^ state.run, adapt().rest_most) end
  pace.changed[target] = true
  return true
end

-- A mail that did not go, of a slot that was taken then. Of a probe: another one may go, and be it this mail.
local function pace_back(target, taken)
  local state = pace_at(target)
  if not state or taken <= state.mark then return end
  state.tat = state.tat - pace_step(state)
  if state.run > 0 then state.till = state.hint end
  pace.changed[target] = true
end

-- Another pace. What was used of the old one counts on, in proportion.
local function set_pace(state, rate, now)
  state.tat = now + math.max(state.tat - now, 0) * state.rate / rate
  state.rate, state.since, state.count = rate, now, 0
end

local function forget_pace(target)
  pace.of[target] = false
  pace.changed[target] = true
end

-- µs until which it is of interest.
local function pace_lasts(state) return math.max(state.till, state.last, state.next) + adapt().memory end

-- Once, at a script's end.
local function keep_paces(now)
  for target in pairs(pace.changed) do
    local state = pace.of[target]
    if state then
      local lasts = pace_lasts(state)
      local kept = {}
      for name, value in pairs(state) do kept[name] = value end
      for _, name in ipairs(PACE.times) do kept[name] = text(state[name]) end
      redis.call('HSET', K.limit(target), 'pace', cjson.encode(kept))
      redis.call('ZADD', K.throttled, text(lasts), target)
      outlast(K.limit(target), math.ceil((lasts - now) / 1000))
    else
      redis.call('HDEL', K.limit(target), 'pace')
      redis.call('ZREM', K.throttled, target)
    end
  end
end

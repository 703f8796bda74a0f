-- throttle: what replies make of a target's pace (pace). Steps are factors, down and up: nobody knows whether a site takes
-- one mail a minute or a thousand a second.
-- DOWN     The first refusal of a mail that went at the present pace cuts it: to the last pace that held, else, and in a
--          series, by the factor `cut`; without one it begins at that much of what was taken of late. Where much less
--          is sent than it allows, what is sent is what was refused. It rests a moment (`rest`).
--          Mails that left before the cut say nothing new: `mark` is to them what TCP's recovery point is (RFC 6582).
--          At least ENOUGH outcomes, or the cool-down, lie between two cuts of one series.
-- DEAR     Where the rest is a long one (a box), and few are refused, a pace that held a while says little: each trial costs
--          as much. So it goes to the other reading of what it took at first (`least`), then by `cut`, and climbs no
--          further but by the steps of UP. (Those of the run before it began are the box's, and say nothing of its pace.)
-- RUN      Nothing but refusals since the cut: no slower pace mends that. It rests longer each time (`longer`), with single
--          probes between: who goes on knocking is kept out longer. The pause that mended it is the first one next time.
-- UP       Only where the pace was used up. Below the one that was refused quickly, to just under it (`under`: where a
--          series goes on, further below); then by small steps. One that holds above what was refused says that the
--          limit has moved: the next ones come sooner and are larger. Each that does not hold makes the next one later:
--          not before the time that the refusal has cost is `loss` of the time between. No step where two were refused
--          within `offences`: who counts them mostly does so by the minute, and three are many. (Among noise nobody does.)
-- NOISE    Six cuts in a row to 60 % and less, and as much is refused as before, half of it or less: one bad server of
--          several, it seems, and no pace. It goes back to where the series began; where no more is refused there, so
--          many refusals are no news for a while, else it was the pace after all.
-- OVER     It could take more than anybody has to send, or for `memory` it refused nothing and was not used up.
-- A throttle of a site with the same words from three sites of a route is the route's; the sites are as before.
-- needs: base route pace

-- One table for all, as a script's top level has room for 200 names.
local throttle = {}
local THAT = {
  enough = 10, -- outcomes that a cut is judged by
  series = 30000000, -- µs: cuts that are closer, or by fewer than `mails_a_probe`, are one series
  levels = 6, -- cuts of a series that are looked at together
  series_under = 0.6, -- of the pace that it began at: before, nothing is said about what slower ones change
  noise_most = 0.5, -- share of refusals; more than that is no noise
  noise_of = 100, -- outcomes by which it is judged whether it has grown
  under_top = 0.96, under_less = 0.06, under_least = 0.84, -- of the pace that was refused
  just_top = 0.975, moved = 1.01, same = 1.07, -- times that: it takes more now; it was refused at the same
  under_safe = 0.97, -- of the one that held
  climb = 1.2, climb_every = 2000000, -- below the pace that was refused: this factor, each so many µs
  step_most = 0.5, wait_least = 5000000, sooner = 4, -- beyond it
  offences = 60000000, -- µs
  first_rest = 1000000, -- µs, at least: most limits are by the second, and the one that was exceeded is not over
  used = 0.6, -- of the pace: then it is what limits
  idle = 5000000, -- µs after which it can be told that the pace is not used
  spare = 1.5, quiet = 60000000, -- over: so many times the peak, and nothing refused for so many µs
  mails_a_probe = 100, -- at least, between two steps that may meet a refusal
  run_most = 20,
  rest_learnt = 300000000, -- µs
  box = 65000, -- ms
  dear = 10000000, dear_share = 0.05, -- µs of a rest, where no more are refused
  proved = 600000000, -- µs at work: then the pace that held is known to hold
  promoted = 20, -- throttles of sites that a route remembers
}

-- Times the first rest, after so many refusals in a row: doubling, but the fifth is a minute and more, if the first is half
-- a second. A box of a minute that each knock begins anew is left after 80 s so; with doubling alone that took 130.
-- Only of a pace that is new: later so many in a row may be chance, and the pause that mended it is known.
function throttle.longer(state, run) return 2 ^ ((run < 5 or state.cut ~= state.began) and run or run + 2) end

-- Nothing goes for so long; longer where it said so.
function throttle.rest(state, now, us) state.till = math.max(state.hint, now + math.min(us, adapt().rest_most)) end

-- Mails per second, of late. Workers share a route evenly: each has as much to do with it as the next one.
function throttle.took_by_all(target, why)
  local key = K.grants(route_of(target))
  return why.took * math.max(1, redis.call('HLEN', key) - redis.call('HEXISTS', key, '*'))
end

function throttle.begin_pace(target, now, why)
  local rule = adapt()
  local took = why.took
  local state = {rate = math.max(took * rule.cut, 1), tat = now, till = 0, hint = 0, run = 0, met = 0, mark = now, good = 0, bad = 0,
    since = now, count = 0,
    peak = took, top = took, least = why.least or 0, safe = 0, before = 0, cut = now, last = now, next = now + THAT.climb_every, step = rule.step,
    wait = rule.wait, patience = rule.wait, rest = rule.rest, fell = now, levels = {}, start = math.max(took, 1), noise = 0, deaf = 0,
    began = now, told = now, at_work = now, prior = 0, lag = 0, under = THAT.under_top,
    shares = {[why.who] = took}, leasts = {[why.who] = why.least or 0}, class = why.class, reply = why.reply, words = why.words}
  throttle.rest(state, now, math.max(state.rest, THAT.first_rest))
  pace.of[target] = state
  has_now(K.throttled)
  return state
end

-- The refusals that other workers met before it began: what all of them took is what it takes. (What one took times
-- the number of workers was twice too much where only one was at work.)
function throttle.add_share(state, now, why)
  if state.cut ~= state.began or now - state.began > THAT.idle or why.took <= (state.shares[why.who] or 0) then return end
  state.shares[why.who] = why.took
  local took = 0
  for _, share in pairs(state.shares) do took = took + share end
  state.top, state.peak, state.start = took, took, math.max(took, 1)
  state.least = state.least + math.max(0, (why.least or 0) - (state.leasts[why.who] or 0))
  state.leasts[why.who] = why.least or 0
  set_pace(state, math.max(took * adapt().cut, 1), now)
end

-- Whether a series of cuts changed nothing: the share of refusals, where it is and stays below half; else nil.
function throttle.noise_of(state)
  local levels = state.levels
  if state.noise > 0 or #levels < THAT.levels or state.rate > THAT.series_under * state.start then return nil end
  local good, bad = {0, 0}, {0, 0}
  for at, level in ipairs(levels) do
    local half = at <= THAT.levels / 2 and 1 or 2
    good[half], bad[half] = good[half] + level[1], bad[half] + level[2]
  end
  local before, after = bad[1] / (good[1] + bad[1]), bad[2] / (good[2] + bad[2])
  local share = (bad[1] + bad[2]) / (good[1] + bad[1] + good[2] + bad[2])
  if share <= THAT.noise_most and after >= 0.7 * before then return share end
  return nil
end

function throttle.is_noise(state, now)
  if state.noise ~= 0 and now >= state.deaf then -- asked anew
    state.noise, state.trial, state.levels, state.start = 0, nil, {}, state.rate
  end
  if state.noise <= 0 then return false end
  local all = state.good + state.bad
  if state.good == 0 then return all < THAT.enough end
  if all < THAT.noise_of then return true end
  local share = state.bad / all
  if share > state.noise + 3 * math.sqrt(state.noise * (1 - state.noise) / all) + 0.01 then return false end
  state.good, state.bad = state.good / 2, state.bad / 2 -- what is long ago hides nothing new
  if state.trial then -- so it may begin anew
    state.noise = math.min(share, THAT.noise_most)
    state.trial, state.step, state.wait, state.next = nil, THAT.step_most, THAT.wait_least, now
  end
  return true
end

-- It goes as quickly as before all those cuts: where they changed nothing, that changes nothing either.
function throttle.try_noise(state, share, now)
  state.noise, state.deaf, state.trial, state.levels = share, now + adapt().noise, true, {}
  state.next, state.top, state.safe = now + state.wait, 0, 0
  set_pace(state, math.max(state.rate, state.start), now)
end

-- True where it turned out that cuts do not help.
function throttle.cut_pace(state, now, used)
  local rule = adapt()
  local since = state.rest >= THAT.dear and state.at_work or state.cut -- a long rest is no time that it held
  local goes_on = now - since < THAT.series or state.good + state.bad < THAT.mails_a_probe
  if goes_on then
    state.levels[#state.levels + 1] = {state.good, state.bad}
    if #state.levels > THAT.levels then table.remove(state.levels, 1) end
  else
    state.levels, state.start = {}, state.rate
  end
  local noise = throttle.noise_of(state)
  if state.trial then -- it did: so it was the pace. Back to where that was; no more of this for as long
    state.noise, state.trial = -1, nil
    set_pace(state, math.min(state.before, state.rate), now)
    state.levels, state.start = {}, state.rate -- and from there on it is asked anew, or noise would be its end
  end
  local dear = state.rest >= THAT.dear and state.bad - state.met <= THAT.dear_share * (state.good + state.bad) and -- a box, no noise
    now - state.at_work < THAT.proved
  state.cut, state.fell, state.mark, state.before, state.good, state.bad, state.met = now, now, now, state.rate, 0, 0, 0
  if noise then
    throttle.try_noise(state, noise, now)
    return true
  end
  local held = not dear and not goes_on and state.safe > 0 and state.safe < state.rate and state.safe * THAT.under_safe
  if not held then state.safe = 0 end
  if used >= 1 and used < state.rate / 2 and now - state.since > THAT.idle then state.rate = used end
  if goes_on or state.rate < state.top or state.rate > state.top * THAT.same then state.top = state.rate end
  state.under = goes_on and math.max(state.under - THAT.under_less, THAT.under_least) or
    math.min(THAT.under_top, held and state.safe / state.top or 1)
  state.step, state.patience = rule.step, math.min(state.patience * 2, rule.wait_most)
  state.next = now + (goes_on and THAT.series or THAT.climb_every)
  -- Where each refusal costs that much the second reading of what it took at first comes before ever smaller cuts.
  local other = dear and state.least > 0 and math.min(state.least, state.rate * rule.cut)
  state.least = dear and 0 or state.least
  set_pace(state, math.max(other or held or state.rate * rule.cut, rule.floor), now)
  if dear then state.top = state.rate end
  state.wait = math.max(state.patience, THAT.mails_a_probe / state.rate * 1e6)
  return false
end

-- A mail was refused for the target's pace. why: {left (µs: when it got its slot), class, reply, words, hint (ms), took (mails per second that
-- this worker brought there of late), least (the same, if a burst was saved up: rates.py)}. What is to be said of it, or nil.
function throttle.slowed(target, now, why)
  local state = pace_at(target)
  local first = not state
  local closed = state and state.till or 0
  if state then
    state.prior, state.last = state.last, now
  end
  if first then
    state = throttle.begin_pace(target, now, why)
  elseif why.left <= state.mark then
    throttle.add_share(state, now, why)
  else
    state.bad, state.count = state.bad + 1, state.count + 1
    state.class, state.reply = why.class, why.reply
    if throttle.is_noise(state, now) then
      -- As much as ever.
    elseif state.good == 0 then
      state.run = math.min(state.run + 1, THAT.run_most)
      if state.run == 2 then set_pace(state, math.max(state.rate / 2, adapt().floor), now) end
      throttle.rest(state, now, state.rest * throttle.longer(state, state.run))
      state.mark = now
    elseif state.bad + state.good >= THAT.enough or now - state.cut >= adapt().cool_down then
      if not throttle.cut_pace(state, now, throttle.took_by_all(target, why)) then throttle.rest(state, now, state.rest) end
    end
  end
  if why.hint > 0 then
    state.hint = math.max(state.hint, now + math.min(why.hint * 1000, adapt().hint_most))
    state.till = math.max(state.till, state.hint)
  end
  pace.changed[target] = true
  -- Said when it begins, and when it closes for a time that somebody may ask about.
  if not first and (state.till - now < THAT.quiet or state.till <= closed or now - state.told < THAT.quiet) then return nil end
  state.told = now
  return {rate = state.rate, ['until'] = math.floor(state.till / 1000), class = why.class, reason = why.reply}
end

-- It took a mail again after nothing but refusals.
function throttle.end_run(state, now)
  local most = math.max(THAT.rest_learnt, adapt().rest)
  local run = state.run < 3 and state.run - 1 or state.run -- twice may be chance
  state.rest = math.min(state.rest * throttle.longer(state, run), most)
  state.met, state.run, state.till = state.run, 0, state.hint
end

function throttle.step_up(state, now)
  local rule = adapt()
  local plateau = state.top * state.under
  if state.rest < THAT.dear or now - state.since >= THAT.idle then state.safe = state.rate end
  if state.rate < plateau * 0.999 then
    set_pace(state, math.min(plateau, state.rate * THAT.climb), now)
    local wait = state.rest < THAT.dear and math.min(state.wait, rule.wait) or state.wait
    state.next = now + (state.rate < plateau and THAT.climb_every or wait)
    return
  end
  if state.noise <= 0 and now - state.prior < THAT.offences then
    state.next = state.prior + THAT.offences
    return
  end
  if state.rate < state.top * THAT.just_top then -- half of what is between
    set_pace(state, (state.rate + state.top) / 2, now)
    state.next = now + state.wait
    return
  end
  if state.rate > state.top * THAT.moved then
    -- So that about one mail more is refused before that is known; among noise small ones would not be noticed.
    local most = state.noise > 0 and THAT.step_most or 1e6 / state.rate / math.max(state.lag, 1)
    state.step = math.min(state.step * 2, math.max(rule.step, math.min(THAT.step_most, most)))
    state.wait = math.max(state.wait / THAT.sooner, THAT.wait_least)
    state.patience, state.under = rule.wait, THAT.under_top
  end
  set_pace(state, math.max(state.rate, state.top) * (1 + state.step), now)
  state.next = now + state.wait
end

-- So many mails that left then were judged otherwise. What is to be said where that ends it; the second: its lanes are
-- due.
function throttle.went_well(target, now, how_many, left)
  local state = pace_at(target)
  if not state or left <= state.mark then return nil, false end
  pace.changed[target] = true
  local again = state.run > 0
  if state.good == 0 then -- no more than this share of the time may go as this went
    local cost = (now - state.fell) / adapt().loss
    state.wait = math.min(math.max(state.wait, cost), adapt().hint_most)
    state.at_work = now
    if state.rest >= THAT.dear and state.rate >= state.top * state.under then
      state.next = math.max(state.next, now + state.wait)
    end
  end
  if again then throttle.end_run(state, now) end
  state.good, state.count = state.good + how_many, state.count + how_many
  state.lag = state.lag + ((now - left) - state.lag) / 16
  local lasted = now - state.since
  if now < state.next or state.count < THAT.enough / 2 or lasted < PACE.w then return nil, again end
  local used = state.count / lasted * 1e6
  state.peak = math.max(state.peak, used)
  if used >= THAT.used * state.rate then
    throttle.step_up(state, now)
  elseif state.rate >= THAT.spare * state.peak and now - state.last > THAT.quiet then
    forget_pace(target)
    return {rate = state.rate, since = math.floor(state.began / 1000), class = state.class}, again
  else -- others limit it: what it is used from now on is counted anew
    state.since, state.count, state.next = now, 0, now + THAT.climb_every
  end
  return nil, again
end

-- ms until the next look at a route that turns us away before MAIL. Where it had just refused mail for its pace, that is
-- a box for those who go on, and each knock may double its time: so a minute first, and four times as long each time.
function throttle.boxed(way, now)
  local state, down = pace_at(way), route_state(way).down
  if not state then return 0 end
  if down == 0 then state.boxed = now - state.last <= THAT.quiet or nil end
  pace.changed[way] = true
  return state.boxed and THAT.box * 4 ^ math.min(math.max(down - 1, 0), 4) or 0
end

-- As if this site's last cut had not been.
function throttle.undo_pace(target, now)
  local state = pace_at(target)
  if not state then return end
  if now - state.began < adapt().cool_down then return forget_pace(target) end
  if now - state.cut < adapt().cool_down and state.before > state.rate then set_pace(state, state.before, now) end
  state.till, state.run = state.hint, 0
  pace.changed[target] = true
end

-- Whose pace a throttle is about: the route's or the site's. Three sites that say the same within the cool-down are the
-- route's, and what they say from then on, too. The second: their targets, which are as before.
function throttle.target_of(way, site, now, why)
  local target = way .. '|' .. site
  if why.scope == 'route' then return way, {} end
  local rule = adapt()
  local state = pace_at(way)
  if state and state.words == why.words then return way, {} end
  state = pace_at(target)
  if rule.sites == 0 or state and why.left <= state.mark then return target, {} end
  local found = redis.call('HGET', K.limit(way), 'throttles')
  local kept, same = {{target, text(now), why.words}}, {target}
  for _, each in ipairs(found and cjson.decode(found) or {}) do
    if each[1] ~= target and now - tonumber(each[2]) < rule.cool_down and #kept < THAT.promoted then
      kept[#kept + 1] = each
      if each[3] == why.words then same[#same + 1] = each[1] end
    end
  end
  local promoted = #same >= rule.sites
  redis.call('HSET', K.limit(way), 'throttles', promoted and '[]' or cjson.encode(kept))
  outlast(K.limit(way), math.ceil(rule.cool_down / 1000))
  if not promoted then return target, {} end
  for _, each in ipairs(same) do throttle.undo_pace(each, now) end
  return way, same
end

-- Those that nothing was heard of for `memory`, and what is to be said of them; at most ten a call.
function throttle.let_paces(now)
  local over = {}
  if not has(K.throttled) then return over end
  for _, target in ipairs(redis.call('ZRANGEBYSCORE', K.throttled, '-inf', text(now), 'LIMIT', 0, 10)) do
    over[target] = pace_at(target) or {}
    forget_pace(target)
  end
  return over
end

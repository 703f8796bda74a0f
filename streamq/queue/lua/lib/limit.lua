-- limit: strict windows of the whole queue, of a route, of a route and site; transactions at once to a site
-- (lib/slots); and who takes a slot of which way.
-- Shortened-tolerance GCRA, one number a window: τ = W/36 (at most 2 s), σ = τ/2, T = (W+τ+σ)/N; admit iff
-- now ≥ TAT − τ, then TAT = max(now, TAT) + T. After N admissions from t₀ TAT ≥ t₀ + W + τ + σ, so the next is at
-- t₀ + W + σ or later; and where each MAIL goes out at most σ (the slack) after its admission, no window of length W,
-- of any phase, holds more than N of them. Usual GCRA with burst N lets nearly 2 N through.
-- GIVEN BACK  Without a slot that was not used TAT would be T less, if each admission since then was T or more ahead of
--   its TAT: then what it was would have been T less, too. So a window keeps since when that is so, and by how much at
--   the least (`spare`), of which each slot given back takes T. Where nobody was admitted since, it always goes.
-- A pace that replies taught (pace) is one more window of its target, whose number adapts.
-- KEPT  Field `kept`: ms up to which the key stays, ten minutes less than it does (as long as `clock` may stand still), so
--   that most scripts need not ask.
-- needs: base route slots pace

local WHOLE = '*' -- the queue, as a target
local windows_of = {} -- target ('*', route, '<route>|<site>') → list of {w, tau, slack, t, tat}
local NONE = {}
local FEW = 100 -- rules that are read at once; of more each target's are asked for
local rules_set -- name → windows; false where there are many
local few_set = {} -- of many rules: those of the queue and of routes that were asked for

local function no_rules()
  if rules_set == nil then
    local many = redis.call('HLEN', K.limits)
    rules_set = many <= FEW and (many > 0 and info(redis.call('HGETALL', K.limits)) or NONE)
  end
  return rules_set == NONE
end

-- Nothing limits anybody: neither settings nor what replies taught.
local function no_limits() return no_rules() and not has(K.throttled) end

-- '50:1000000,60000:3600000000' (mails : µs) as `limits` holds it; of a site the most specific.
local function rule_of(target)
  local route, site = target:match('^([^|]*)|(.*)$')
  if not site then
    if rules_set then return rules_set[target] end
    if few_set[target] == nil then few_set[target] = redis.call('HGET', K.limits, target) end
    return few_set[target]
  end
  if rules_set then
    return rules_set[target] or rules_set['*|' .. site] or rules_set[route .. '|*'] or rules_set['*|*']
  end
  local rules = redis.call('HMGET', K.limits, target, '*|' .. site, route .. '|*', '*|*')
  return rules[1] or rules[2] or rules[3] or rules[4]
end

-- What a rule says, the same for all its targets: its windows; `names`, as they are asked for; `most` transactions at once
-- (';c5' behind them).
local rules_read = {}
local function windows_in(rule)
  local found = rules_read[rule]
  if found then return found end
  found = {names = {}, most = tonumber(rule:match(';c(%d+)'))}
  for n, w in rule:gmatch('(%d+):(%d+)') do
    n, w = tonumber(n), tonumber(w)
    local tau = math.min(math.floor(w / 36), 2000000)
    local slack = math.floor(tau / 2)
    local t = (w + tau + slack) / n
    found[#found + 1] = {w = w, name = text(w), tau = tau, slack = slack, t = t, step = string.format('%.17g', t)}
    found.names[#found] = found[#found].name
  end
  found.names[#found + 1] = 'kept'
  rules_read[rule] = found
  return found
end

-- Its windows; a changed limit keeps its history. `most` beside them: transactions at once.
local function windows_at(target, now)
  local found = windows_of[target]
  if found then return found end
  if no_rules() then return NONE end
  local rule = windows_in(rule_of(target) or '')
  found = {most = rule.most}
  windows_of[target] = found
  if #rule == 0 then return found end
  local states = redis.call('HMGET', K.limit(target), unpack(rule.names))
  found.kept = tonumber(states[#rule + 1] or 0)
  for at, of in ipairs(rule) do
    local tat, t, since, spare = (states[at] or ''):match('^(%d+):([%d.]+):?(%d*):?(%d*)$')
    local window = {w = of.w, name = of.name, tau = of.tau, slack = of.slack, t = of.t, step = of.step, target = target,
      tat = tonumber(tat or 0), since = tonumber(since or 0) or now, spare = tonumber(spare or 0) or 0}
    found[at] = window
    if t and t ~= of.step and tonumber(t) ~= of.t then
      window.tat = now + math.max(window.tat - now, 0) * of.t / tonumber(t)
      window.since, window.spare, window.changed = now, 0, true
    end
  end
  return found
end

-- 0, or µs at which it has its next slot.
local function wait_at(target, now)
  local next = 0
  for _, window in ipairs(windows_at(target, now)) do
    if now < window.tat - window.tau then next = math.max(next, window.tat - window.tau) end
  end
  return math.ceil(next)
end

-- 0, or µs of the next slot of this way to a site; and what it waits for: 'site', 'route', 'queue'.
local function wait_for(way, site, now)
  if no_limits() then return 0 end
  local target = way .. '|' .. site
  local at_site = math.max(wait_at(target, now), pace_opens(target, now))
  local at_route, at_queue = math.max(wait_at(way, now), pace_opens(way, now)), wait_at(WHOLE, now)
  local next = math.max(at_site, at_route, at_queue)
  if at_site > 0 then return next, 'site' end
  return next, at_route > at_queue and 'route' or 'queue'
end

local ROUNDED = 2 -- µs: TATs are kept as whole numbers

local function advance_window(window, now)
  local ahead = window.tat - now - ROUNDED
  if ahead < window.t then
    window.since, window.spare = now, window.tau
  else
    window.spare = math.min(window.spare, ahead)
  end
  window.tat = math.max(now, window.tat) + window.t
  window.changed = true
end

-- A mail goes: the slack that its windows leave, nil where there is none; they are marked as taken.
local function advance_all(windows, now, marks)
  local slack
  for nth = 1, #windows do
    local window = windows[nth]
    advance_window(window, now)
    slack = math.min(slack or window.slack, window.slack)
    marks[#marks + 1] = window.target .. ' ' .. window.name .. ' ' .. digits(math.ceil(window.tat))
  end
  return slack
end

-- What took it, for `give_back`: '<slack µs> <now> <target> <W> <TAT>;…', W 0 for a pace; '' where nothing limits it.
local function slot_mark(slack, now, marks)
  return slack and digits(slack) .. ' ' .. digits(now) .. ' ' .. table.concat(marks, ';') or ''
end

local function advance(way, site, now)
  if no_limits() then return '' end
  local marks, slack = {}, nil
  for _, target in ipairs({WHOLE, way, way .. '|' .. site}) do
    if pace_takes(target, now) then
      slack = math.min(slack or PACE.slack, PACE.slack)
      marks[#marks + 1] = target .. ' 0 0'
    end
    local left = advance_all(windows_at(target, now), now, marks)
    if left then slack = math.min(slack or left, left) end
  end
  return slot_mark(slack, now, marks)
end

-- A slot of a mail that did not go: free again, or lost. Of a batch the last first.
local function give_back_to(window, taken, tat, now)
  if math.abs(window.tat - tat) <= ROUNDED then
    window.tat = math.max(window.tat, tat) - window.t
  elseif window.since <= taken and window.spare >= window.t then
    window.tat, window.spare = window.tat - window.t, window.spare - window.t
  else
    window.since, window.spare = now, window.tau
  end
  window.changed = true
end

local function give_back(slot, now)
  if slot == '' or no_limits() then return end
  local taken, marks = slot:match('^%d+ (%d+) (.*)$')
  for target, w, tat in marks:gmatch('([^ ;]+) (%d+) (%d+)') do
    if w == '0' then pace_back(target, tonumber(taken)) end
    for _, window in ipairs(windows_at(target, now)) do
      if window.w == tonumber(w) then give_back_to(window, tonumber(taken), tonumber(tat), now) end
    end
  end
end

-- Transactions at once: true, or µs of the next look. A lane that waits is told when one ends.
local function at_once_free(lane, way, site, now, consumer, entry)
  local target = way .. '|' .. site
  local most = not no_rules() and windows_at(target, now).most
  if not most then return true end
  local free = slot_free(target, most, now, consumer, entry)
  if free ~= true then slot_waits(target, lane) end
  return free, true
end

-- A slot was taken: 0, its way ('<way>|<site>' where transactions at once are counted there), its mark. Else nothing
-- was: µs at which the next one comes, and what it waits for: 'site', 'route', 'queue'; 'closed': no way is open;
-- 'others': it is another worker that may take it now.
local function take_slot(lane, now, consumer, entry)
  local way, opens = open_way(lane, now)
  if not way then return opens, 'closed' end
  if mine and mine[way] == false then return now, 'others' end
  local site = site_in(lane)
  local next, scope = wait_for(way, site, now)
  if next > 0 then return next, scope end
  local free, counted = at_once_free(lane, way, site, now, consumer, entry)
  if free ~= true then return free, 'site' end
  if counted then slot_taken(way .. '|' .. site, consumer, entry, now) end
  local slot = advance(way, site, now)
  if route_state(way).down > 0 then probing(way, now) end
  return 0, counted and way .. '|' .. site or way, slot
end

-- Of a way that is open, to a site, where nothing has a pace: all windows that a mail passes; is_shared: some of them are
-- the queue's or the route's. As take_slot, for mails that need no more than that.
local function passage_of(way, site, now)
  local target = way .. '|' .. site
  local passage = {target = target}
  for _, window in ipairs(windows_at(WHOLE, now)) do passage[#passage + 1] = window end
  for _, window in ipairs(windows_at(way, now)) do passage[#passage + 1] = window end
  passage.is_shared = #passage > 0
  local own = windows_at(target, now)
  for _, window in ipairs(own) do passage[#passage + 1] = window end
  passage.most = own.most
  return passage
end

-- Its mark; nil where there is no slot now.
local function take_passage(passage, lane, now, consumer, entry)
  for nth = 1, #passage do
    if now < passage[nth].tat - passage[nth].tau then return nil end
  end
  if passage.most then
    if slot_free(passage.target, passage.most, now, consumer, entry) ~= true then return slot_waits(passage.target, lane) end
    slot_taken(passage.target, consumer, entry, now)
  end
  local marks = {}
  return slot_mark(advance_all(passage, now, marks), now, marks)
end

-- Without taking: 0, or µs at which a slot comes, and what it waits for.
local function next_slot(lane, now)
  local way, opens = open_way(lane, now)
  if not way then return opens, 'closed' end
  local site = site_in(lane)
  local next, scope = wait_for(way, site, now)
  if next > 0 then return next, scope end
  local free = at_once_free(lane, way, site, now)
  if free ~= true then return free, 'site' end
  return 0
end

-- The only route that this worker uses; nil where it uses several, or did not say.
local function only_route()
  local only
  for route, used in pairs(mine or {}) do
    if used and only then return nil end
    if used then only = route end
  end
  return only
end

-- A mail that waits for the queue, or for the only route there is, does not park: nothing behind it could go either,
-- so reading stops, and the order of priorities stays in the streams.
local function stops_reading(scope) return scope == 'queue' or (scope == 'route' and only_route() ~= nil) end

-- What bounds reading: µs at which the binding window had, or has, its first free slot, µs from one slot to the next,
-- how many there are at once at most. 0, 0, 0: nothing does.
local function gate(now)
  if no_limits() then return 0, 0, 0 end
  local opens, step, most
  local function bound(from, t, tau)
    local free = math.floor((now - from) / t)
    if not opens or free < math.floor((now - opens) / step) then
      opens, step, most = from, t, math.floor(tau / t) + 1
    end
  end
  for _, target in ipairs({WHOLE, only_route()}) do
    for _, window in ipairs(windows_at(target, now)) do
      bound(math.max(window.tat, now) - window.tau, window.t, window.tau)
    end
    local state = pace_at(target)
    if state then bound(math.max(state.till, math.max(state.tat, now) - PACE.tau), pace_step(state), PACE.tau) end
  end
  return math.ceil(opens or 0), math.ceil(step or 0), most or 0
end

-- Slots that such a gate has now; nil: no limit.
local function free_at(now, opens, step, most)
  if step == 0 then return nil end
  return opens > now and 0 or math.min(most, math.floor((now - opens) / step) + 1)
end

local KEPT_LONGER = {ms = 60000, still = 600000} -- than asked for: so that it is asked for once a minute; see KEPT

-- Once, at a script's end.
local function keep_limits(now)
  local now_ms = math.floor(now / 1000)
  for target, all in pairs(windows_of) do
    local fields, last = {}, 0
    for nth = 1, #all do
      local window = all[nth]
      if window.changed then
        local tat = math.ceil(window.tat)
        fields[#fields + 1] = window.name
        fields[#fields + 1] = digits(tat) .. ':' .. window.step .. ':' .. digits(window.since) .. ':' .. digits(window.spare)
        last = math.max(last, math.ceil((tat + window.w) / 1000) + 1000)
      end
    end
    local is_short = #fields > 0 and last > all.kept
    if is_short then
      fields[#fields + 1] = 'kept'
      fields[#fields + 1] = digits(last + KEPT_LONGER.ms)
    end
    if #fields > 0 then redis.call('HSET', K.limit(target), unpack(fields)) end
    if is_short then outlast(K.limit(target), last - now_ms + KEPT_LONGER.ms + KEPT_LONGER.still) end
  end
end

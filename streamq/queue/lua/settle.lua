-- settle: the ends of attempts. Fenced: only who holds the entry under that token changes anything.
-- needs: base lease index child notes seen event letter dead report route slots pace throttle limit outcome
-- KEYS: {streamq}: absent bodies body clock collapse counts dead due events expiry grants held holds lane lease
--   limit limits meta notes parked pauses reports schedule seen shared slots stream throttled turns
-- ARGV: now consumer window
-- EACH: op entry token lane id kind tail arg way left
--   op         sent  gone, with its event                    arg  '', or JSON {ambiguous: by policy, not by a reply,
--                                                                 hash: of its content, if it was parked unlooked-at}
--              defer on the schedule, one attempt more       arg  JSON {wait (ms), deadline (ms), class, reply, down,
--                                                                 hint, ambiguous (it may have been sent), code, report
--                                                                 (lib/report: it is late)}
--              throttled  no attempt: its site or route slows    arg  JSON as of defer, and {scope (site or route), words,
--                                                                 hint (ms), took, took_way (mails per second that
--                                                                 this worker brought to the site, to the route),
--                                                                 park (true: to its lane, not on the schedule)}
--              dead  dead letter                             arg  JSON {reason, class, reply, judged, text (what the
--                                                                 breaker counts; absent: it is about the recipient),
--                                                                 report (lib/report)}
--              park  back to its lane, no attempt            arg  JSON {wait (ms), broke (its session ended at this
--                                                                 mail)}, or of a route that failed {down,
--                                                                 class, reply, hint (ms: the server said so), own (at
--                                                                 this mail), lonely (maybe our own network's trouble)}
--              hold  held                                    arg  JSON {reason, class, ambiguous}
--              gone  its entry was deleted by somebody
--   lane       '' where it does not matter      way  the route it went; '' for its lane's first; '<route>|<site>' where it
--     has a slot, which is left whatever becomes of the row
--   left       µs at which it got its slot, 0 where nothing limited it
--   kind       the event's type, '' for none; tail its inner JSON
-- RETURNS: now, next (µs of the next due thing that this call made, 0 none), marks ('' or JSON: of the targets of
--   these rows those that slowed after some of them left, and when, in µs), then per row a status:
--   ok fenced (somebody else holds it, or nobody) expired held cancelled bounced (an intent was carried out)
--   parked (dead was asked for, and the breaker holds the route)
--   bouncing expiring (nothing was done but that an attempt was counted: it is to end so, and its sender to be told;
--     the caller brings `dead`, with the report)
--   alone (parked; the route works for others, so it was not closed)
-- EVENTS: the rows' kinds; email.expired email.held email.cancelled email.bounced for intents; email.ambiguous; a late email.relayed; route.resumed, route.paused, site.throttled, site.recovered

local given, consumer, window = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now = clock(given)
local now_ms = math.floor(now / 1000)
local next = 0
local out = {}
local PROBES_MOST = 2 -- as outcome.py has it for a route that failed
gather()
ask_holds(consumer, 2)

local function sooner(us) if next == 0 or us < next then next = us end end

local op_of = {}

-- Its argument, read once: with a report in it that is some kilobytes.
local function why_of(mail)
  if mail.read ~= mail.arg then mail.read, mail.why = mail.arg, cjson.decode(mail.arg) end
  return mail.why
end

-- An outcome by policy, not by a reply: that is said as well.
local function say_ambiguous(mail)
  count('total:ambiguous', 1)
  event('email.ambiguous', mail.producer, mail.entry, mail.event_id .. '.a', now, mail.tail)
end

-- How a mail was sent; what its worker knows of its content is noted, whoever holds it by now.
local function sent_how(arg, entry, producer)
  local how = arg ~= '' and cjson.decode(arg) or {}
  if how.hash then hashed(digest_of('', producer), bytes_of(how.hash, 4), entry, now, window) end
  return how
end

function op_of.sent(mail)
  if sent_how(mail.arg, mail.entry, mail.producer).ambiguous then say_ambiguous(mail) end
  remove(mail.entry, mail.stream, mail.id, parent_in(mail.tail))
  count('total:' .. mail.kind:match('[^.]*$'), 1)
  event(mail.kind, mail.producer, mail.entry, mail.event_id, now, mail.tail)
  return 'ok'
end

function op_of.gone(mail)
  vanish(mail.entry, mail.stream, mail.id)
  return 'ok'
end

function op_of.dead(mail)
  local why = why_of(mail)
  local notes = notes_of(mail.entry)
  why.attempts = (notes.attempts or 0) + (why.judged and 1 or 0)
  if not bury(mail.entry, mail.stream, mail.id, why, now, window) then return 'ok' end
  count('total:' .. mail.kind:match('[^.]*$'), 1)
  event(mail.kind, mail.producer, mail.entry, mail.event_id, now, with(mail.tail, tell(why.report, now)))
  return 'ok'
end

-- What an operator asked for while the mail was under way; nil where nobody did.
local carried_out

function op_of.hold(mail)
  if intent_of(mail.entry) == 'hold' then drop_intent(mail.entry) end
  local asked = carried_out(mail)
  if asked then return asked end
  local why = why_of(mail)
  local notes = notes_of(mail.entry)
  if why.ambiguous then
    say_ambiguous(mail)
    notes.ambiguous, notes.stays = (notes.ambiguous or 0) + 1, mail.way -- released, it may go that way alone
  end
  held_for(notes, why.reason, why.class)
  leave(mail.stream, mail.id)
  hold(mail.entry)
  note(mail.entry, notes)
  event(mail.kind, mail.producer, mail.entry, mail.event_id, now, mail.tail)
  return 'ok'
end

function carried_out(mail)
  local asked = intent_of(mail.entry)
  if not asked then return nil end
  if asked == 'bounce' and is_awaited(fields_of(mail.stream, mail.id), mail.entry) then return 'bouncing' end
  drop_intent(mail.entry)
  mail.tail = with(mail.tail, '"asked":"' .. asked .. '"')
  if asked == 'hold' then
    mail.kind, mail.arg = 'email.held', '{"reason":"asked for","class":"operator"}'
    op_of.hold(mail)
    return 'held'
  elseif asked == 'bounce' then
    mail.kind, mail.arg = 'email.bounced', '{"reason":"bounced by an operator","class":"operator"}'
    op_of.dead(mail)
    return 'bounced'
  end
  local fields = fields_of(mail.stream, mail.id)
  local map = known_of(fields or {}, mail.entry)
  disown(map, mail.entry, now, window)
  remove(mail.entry, mail.stream, mail.id, map.parent)
  count('total:cancelled', 1)
  event('email.cancelled', mail.producer, mail.entry, mail.event_id, now, mail.tail)
  return 'cancelled'
end

-- A route is closed from here on, and why.
local function say_paused(mail, known)
  known.route, known.class = mail.way, known.class or 'unreachable'
  if known.reason == '' then known.reason = nil end
  event('route.paused', mail.way, '', mail.event_id, now, json(known):sub(2, -2))
end

-- What is known of a mail that is not at its end.
local function remember(mail, why, counted)
  local notes = notes_of(mail.entry)
  notes[counted] = (notes[counted] or 0) + 1
  notes.first = notes.first or now_ms
  notes.last, notes.reply, notes.class, notes.code = now_ms, why.reply, why.class, why.code
  if why.ambiguous then notes.ambiguous, notes.stays = (notes.ambiguous or 0) + 1, mail.way end
  note(mail.entry, notes)
  return notes
end

-- What somebody, or its age, makes of it instead of another try; nil: it is tried again.
local function ended(mail, why)
  local asked = carried_out(mail)
  if asked or now_ms < why.deadline then return asked end
  if is_awaited(fields_of(mail.stream, mail.id), mail.entry) then return 'expiring' end
  mail.kind, mail.arg = 'email.expired', json({reason = 'too old: its time was over at ' .. text(why.deadline),
    class = 'expired', reply = why.reply})
  op_of.dead(mail)
  return 'expired'
end

-- due: ms, nil where it stands in its lane
local function say_late(mail, why, notes, due)
  count('class:' .. why.class, 1)
  local tail = due and with(mail.tail, '"next_attempt_at":' .. text(due)) or mail.tail
  if why.report then -- once a mail, whatever became of it
    tail = with(tail, tell(why.report, now))
    notes.warned = 1
    note(mail.entry, notes)
  end
  event(mail.kind, mail.producer, mail.entry, mail.event_id, now, tail)
end

local function put_off(mail, due)
  leave(mail.stream, mail.id)
  schedule(mail.entry, due)
  sooner(due * 1000)
end

function op_of.defer(mail)
  local why = why_of(mail)
  local notes = remember(mail, why, 'attempts')
  local status = ended(mail, why)
  if status then return status end
  local due = math.min(now_ms + why.wait, why.deadline)
  if why.down and route_down(mail.way, now, why) then say_paused(mail, {class = why.class, reason = why.reply}) end
  put_off(mail, due)
  count('total:deferred', 1)
  say_late(mail, why, notes, due)
  return 'ok'
end

local marks = {} -- target → when it slowed

local function say_pace(kind, target, mail, known)
  known.route, known.site = route_of(target), site_in(target)
  event(kind, target, '', mail.event_id, now, json(known):sub(2, -2))
end

-- What the reply says of the pace of its site, or its route.
local function slow(mail, why)
  local target, others = throttle.target_of(mail.way, site_in(mail.lane), now, why)
  for _, other in ipairs(others) do say_pace('site.recovered', other, mail, {reason = 'its route slows instead'}) end
  if target == mail.way then why.took, why.least = why.took_way, why.least_way end
  local told = throttle.slowed(target, now, why)
  if told then say_pace('site.throttled', target, mail, told) end
  marks[target] = pace_at(target).mark
end

-- It goes back to the front of its lane, which waits for its site's next slot: nothing is due at the same moment in
-- an hour. A mail that met this too often goes on the schedule, or it would be the one probe of its lane for ever.
function op_of.throttled(mail)
  local why = why_of(mail)
  why.left, why.who = tonumber(mail.left), consumer
  local notes = remember(mail, why, 'throttled')
  if adapt() then slow(mail, why) end
  local status = ended(mail, why)
  if status then return status end
  local due = nil
  if why.park and adapt() then
    local slot = math.max(next_slot(mail.lane, now), now)
    leave(mail.stream, mail.id)
    park(mail.entry, mail.lane, slot)
    sooner(slot)
  else
    due = math.min(now_ms + why.wait, why.deadline)
    put_off(mail, due)
  end
  count('total:throttled', 1)
  say_late(mail, why, notes, due)
  return 'ok'
end

-- The pace of its site and its route did it no harm.
local function keeps_pace(mail)
  local left = tonumber(mail.left)
  for _, target in ipairs({mail.way, mail.way .. '|' .. site_in(mail.lane)}) do
    local told, again = throttle.went_well(target, now, 1, left)
    if told then say_pace('site.recovered', target, mail, told) end
    local state = pace_at(target)
    if state and left <= state.mark then marks[target] = state.mark end
    if again and target == mail.way then
      wake(mail.way, now)
    elseif again then
      for _, name in ipairs(NAMES) do redis.call('ZADD', K.due(name), 'XX', 'LT', text(now), road_of(mail.lane)) end
    end
    if again then sooner(now) end
  end
end

function op_of.park(mail)
  local why = why_of(mail)
  local status = 'ok'
  local till = now
  if why.down and not why.lonely then why.hint = math.max(why.hint or 0, throttle.boxed(mail.way, now)) end
  if not why.down then
    till = now + (why.wait or 0) * 1000
  elseif why.lonely and works_for_others(mail.way, consumer, now) then
    status, why.own = 'alone', nil
  elseif route_down(mail.way, now, why) then
    say_paused(mail, {class = why.class, reason = why.reply})
  end
  local asked = carried_out(mail)
  if asked then return asked end
  if why.own then -- twice the probe, and the third time it is this mail that is judged
    local notes = notes_of(mail.entry)
    notes.parks = (notes.parks or 0) + 1
    note(mail.entry, notes)
  elseif why.broke then
    local notes = notes_of(mail.entry)
    notes.broke = (notes.broke or 0) + 1
    note(mail.entry, notes)
  end
  leave(mail.stream, mail.id)
  park(mail.entry, mail.lane, math.max(till, (next_slot(mail.lane, now))))
  sooner(math.max(till, now))
  return status
end

-- The breaker: where most of the last hundred died of one text that is not about recipients, it is not the mails. The
-- route closes, and what would die of that class from here on parks. One that was the probe three times dies all the
-- same: it may be the only one of its kind, and stand in front of all others.
local function is_broken(mail)
  local why = why_of(mail)
  local state = route_state(mail.way)
  local many = same_failures(mail.way, why.text)
  if state.down == 0 and many > MOST_OF_RING then
    route_down(mail.way, now, {class = 'breaker', of = why.class, reply = why.reply})
    say_paused(mail, {class = 'breaker', of = why.class, reason = why.reply, count = many, outcomes = RING})
  elseif state.class ~= 'breaker' or state.of ~= why.class then
    return false
  end
  if tonumber(mail.token) <= state.mark then return true end
  local notes = notes_of(mail.entry)
  if (notes.parks or 0) >= PROBES_MOST then return false end
  notes.parks = (notes.parks or 0) + 1
  note(mail.entry, notes)
  return true
end

local spoke = {sent = true, defer = true, dead = true, throttled = true}

-- What a judgement says of the route. Good news of before a pause is none: only a mail that was leased since was its
-- probe. A breaker hears of nothing but a 250.
local function heard(mail, text_)
  note_good(mail.way, consumer, now)
  if not text_ then other_outcome(mail.way) end
  local state = route_state(mail.way)
  local class = state.class
  if state.down == 0 or tonumber(mail.token) <= state.mark or (class == 'breaker' and mail.op ~= 'sent') then return end
  if class == 'breaker' then forgive(mail.way, RING_KEPT) end
  route_up(mail.way, now)
  event('route.resumed', mail.way, '', mail.event_id, now, '"route":' .. json(mail.way) .. ',"class":' .. json(class))
  sooner(now)
end

for target, state in pairs(throttle.let_paces(now)) do
  event('site.recovered', target, '', target .. '.' .. text(now), now,
    json({route = route_of(target), site = site_in(target), rate = state.rate, class = state.class}):sub(2, -2))
end
for op, entry, token, lane, producer, kind, tail, arg, way, left in each() do
  local p, id, stream = split(entry)
  if site_in(way) then
    slot_left(way, consumer, entry)
    way = route_of(way)
  end
  if owns(stream, id, consumer, token) then
    local mail = {entry = entry, id = id, stream = stream, lane = lane, producer = producer, kind = kind, tail = tail,
      arg = arg, event_id = entry .. '.' .. token, op = op, token = token, left = left, way = way ~= '' and way or route_of(lane)}
    local refused = op == 'defer' and why_of(mail).down -- judged, and no good word about the route
    local said = op == 'dead' and why_of(mail).text
    if spoke[op] and not refused and lane ~= '' then
      heard(mail, said)
      if op ~= 'throttled' and has(K.throttled) then keeps_pace(mail) end
    end
    -- What was sent is neither tried again nor reported as failed.
    local was_sent = op ~= 'sent' and op ~= 'gone' and sent_late(entry, stream, id, producer, mail.event_id, now)
    if was_sent then
      out[#out + 1] = 'ok'
    elseif said and lane ~= '' and is_broken(mail) then
      mail.arg = '{}'
      local status = op_of.park(mail)
      out[#out + 1] = status == 'ok' and 'parked' or status
    else
      out[#out + 1] = op_of[op](mail)
    end
  else
    -- A 250 that comes too late: the new owner must learn of it before its own dot.
    if not exists(stream, id) then
      forget(entry)
    elseif op == 'sent' then
      local notes = notes_of(entry)
      notes.sent = tail
      note(entry, notes)
      sent_how(arg, entry, producer)
      count('late', 1)
    end
    out[#out + 1] = 'fenced'
  end
end

flush()
keep_records()
if keep_slots(now) then sooner(now) end
keep_paces(now)
return {text(now), text(next), _G.next(marks) and json(marks) or '', unpack(out)}

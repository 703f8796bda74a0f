-- settle: the ends of attempts. Fenced: only who holds the entry under that token changes anything.
-- needs: base lease index child notes seen event letter dead report route limit outcome
-- KEYS: {streamq}: absent bodies body clock collapse counts dead due events expiry held holds lane lease limit limits
--   meta notes parked pauses reports schedule seen stream
-- ARGV: now consumer window
-- EACH: op entry token lane id kind tail arg way
--   op         sent  gone, with its event                    arg  '', or JSON {ambiguous: by policy, not by a reply,
--                                                                 hash: of its content, if it was parked unlooked-at}
--              defer on the schedule, one attempt more       arg  JSON {wait (ms), deadline (ms), class, reply, down,
--                                                                 hint, ambiguous (it may have been sent), unjudged
--                                                                 (a throttle: no attempt), code, report (lib/report:
--                                                                 it is late)}
--              dead  dead letter                             arg  JSON {reason, class, reply, judged, text (what the
--                                                                 breaker counts; absent: it is about the recipient),
--                                                                 report (lib/report)}
--              park  back to its lane, no attempt            arg  JSON {wait (ms), broke (its session ended at this
--                                                                 mail)}, or of a route that failed {down,
--                                                                 class, reply, hint (ms: the server said so), own (at
--                                                                 this mail), lonely (maybe our own network's trouble)}
--              hold  held                                    arg  JSON {reason, class, ambiguous}
--              gone  its entry was deleted by somebody
--   lane       '' where it does not matter      way  the route it went; '' for its lane's first
--   kind       the event's type, '' for none; tail its inner JSON
-- RETURNS: now, next (µs of the next due thing that this call made, 0 none), then per row a status:
--   ok fenced (somebody else holds it, or nobody) expired held cancelled bounced (an intent was carried out)
--   parked (dead was asked for, and the breaker holds the route)
--   bouncing expiring (nothing was done but that an attempt was counted: it is to end so, and its sender to be told;
--     the caller brings `dead`, with the report)
--   alone (parked; the route works for others, so it was not closed)
-- EVENTS: the rows' kinds; email.expired email.held email.cancelled email.bounced for intents; email.ambiguous; a late email.relayed; route.resumed, route.paused

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
  notes.reason, notes.class = why.reason, why.class
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

function op_of.defer(mail)
  local why = why_of(mail)
  local notes = notes_of(mail.entry)
  if why.unjudged then
    notes.throttled = (notes.throttled or 0) + 1
  else
    notes.attempts = (notes.attempts or 0) + 1
  end
  notes.first = notes.first or now_ms
  notes.last, notes.reply, notes.class, notes.code = now_ms, why.reply, why.class, why.code
  if why.ambiguous then notes.ambiguous, notes.stays = (notes.ambiguous or 0) + 1, mail.way end
  note(mail.entry, notes)
  local asked = carried_out(mail)
  if asked then return asked end
  if now_ms >= why.deadline then
    if is_awaited(fields_of(mail.stream, mail.id), mail.entry) then return 'expiring' end
    mail.kind, mail.arg = 'email.expired', json({reason = 'too old: its time was over at ' .. text(why.deadline),
      class = 'expired', reply = why.reply})
    op_of.dead(mail)
    return 'expired'
  end
  local due = math.min(now_ms + why.wait, why.deadline)
  if why.down and route_down(mail.way, now, why) then say_paused(mail, {class = why.class, reason = why.reply}) end
  leave(mail.stream, mail.id)
  schedule(mail.entry, due)
  sooner(due * 1000)
  count('total:deferred', 1)
  count('class:' .. why.class, 1)
  local tail = with(mail.tail, '"next_attempt_at":' .. text(due))
  if why.report then -- once a mail, whatever became of it
    tail = with(tail, tell(why.report, now))
    notes.warned = 1
    note(mail.entry, notes)
  end
  event(mail.kind, mail.producer, mail.entry, mail.event_id, now, tail)
  return 'ok'
end

function op_of.park(mail)
  local why = why_of(mail)
  local status = 'ok'
  local till = now
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

local spoke = {sent = true, defer = true, dead = true}

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

for op, entry, token, lane, producer, kind, tail, arg, way in each() do
  local p, id, stream = split(entry)
  if owns(stream, id, consumer, token) then
    local mail = {entry = entry, id = id, stream = stream, lane = lane, producer = producer, kind = kind, tail = tail,
      arg = arg, event_id = entry .. '.' .. token, op = op, token = token, way = way ~= '' and way or route_of(lane)}
    local refused = op == 'defer' and why_of(mail).down -- judged, and no good word about the route
    local said = op == 'dead' and why_of(mail).text
    if spoke[op] and not refused and lane ~= '' then heard(mail, said) end
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
return {text(now), text(next), unpack(out)}

-- settle: the ends of attempts. Fenced: only who holds the entry under that token changes anything.
-- needs: base lease index notes seen event dead limit
-- KEYS: {streamq}: absent clock counts dead due events expiry held holds lane limit limits meta notes parked
--   schedule seen stream
-- ARGV: now consumer window
-- EACH: op entry token lane id kind tail arg
--   op         sent  gone, with its event                    arg  '', or JSON {ambiguous: by policy, not by a reply,
--                                                                 hash: of its content, if it was parked unlooked-at}
--              defer on the schedule, one attempt more       arg  JSON {wait (ms), deadline (ms), class, reply, down, ambiguous}
--              dead  dead letter                             arg  JSON {reason, class, reply, judged}
--              park  back to its lane, no attempt            arg  JSON {down (the route failed), wait (ms), own (at this mail)}
--              hold  held                                    arg  JSON {reason, class, ambiguous}
--              gone  its entry was deleted by somebody
--   lane       '' where it does not matter
--   kind       the event's type, '' for none; tail its inner JSON
-- RETURNS: now, next (µs of the next due thing that this call made, 0 none), then per row a status:
--   ok fenced (somebody else holds it, or nobody) expired held cancelled bounced (an intent was carried out)
-- EVENTS: the rows' kinds; email.expired email.held email.cancelled email.bounced for intents; email.ambiguous; a late email.relayed; route.resumed, route.paused

local given, consumer, window = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now = clock(given)
local now_ms = math.floor(now / 1000)
local next = 0
local out = {}
gather()
ask_holds(consumer, 2)

local function sooner(us) if next == 0 or us < next then next = us end end

local op_of = {}

-- An outcome by policy, not by a reply: that is said as well.
local function say_ambiguous(mail)
  count('total:ambiguous', 1)
  event('email.ambiguous', mail.producer, mail.entry, mail.event_id .. '.a', now, mail.tail)
end

function op_of.sent(mail)
  local how = mail.arg ~= '' and cjson.decode(mail.arg) or {}
  if how.ambiguous then say_ambiguous(mail) end
  if how.hash then hashed(digest_of('', mail.producer), bytes_of(how.hash, 4), mail.entry, now, window) end
  remove(mail.entry, mail.stream, mail.id)
  count('total:' .. mail.kind:match('[^.]*$'), 1)
  event(mail.kind, mail.producer, mail.entry, mail.event_id, now, mail.tail)
  return 'ok'
end

function op_of.gone(mail)
  vanish(mail.entry, mail.stream, mail.id)
  return 'ok'
end

function op_of.dead(mail)
  local why = cjson.decode(mail.arg)
  local notes = notes_of(mail.entry)
  why.attempts = (notes.attempts or 0) + (why.judged and 1 or 0)
  if not bury(mail.entry, mail.stream, mail.id, why, now, window) then return 'ok' end
  count('total:' .. mail.kind:match('[^.]*$'), 1)
  event(mail.kind, mail.producer, mail.entry, mail.event_id, now, mail.tail)
  return 'ok'
end

-- What an operator asked for while the mail was under way; nil where nobody did.
local carried_out

function op_of.hold(mail)
  if intent_of(mail.entry) == 'hold' then drop_intent(mail.entry) end
  local asked = carried_out(mail)
  if asked then return asked end
  local why = cjson.decode(mail.arg)
  local notes = notes_of(mail.entry)
  if why.ambiguous then
    say_ambiguous(mail)
    notes.ambiguous = (notes.ambiguous or 0) + 1
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
  if fields then
    local map = info(fields)
    if (map['id'] or '') ~= '' then unsee(digest_of(map['tenant'], map['id']), mail.entry, now, window) end
  end
  remove(mail.entry, mail.stream, mail.id)
  count('total:cancelled', 1)
  event('email.cancelled', mail.producer, mail.entry, mail.event_id, now, mail.tail)
  return 'cancelled'
end

function op_of.defer(mail)
  local why = cjson.decode(mail.arg)
  local notes = notes_of(mail.entry)
  notes.attempts = (notes.attempts or 0) + 1
  notes.first = notes.first or now_ms
  notes.last, notes.reply, notes.class = now_ms, why.reply, why.class
  if why.ambiguous then notes.ambiguous = (notes.ambiguous or 0) + 1 end
  note(mail.entry, notes)
  local asked = carried_out(mail)
  if asked then return asked end
  if now_ms >= why.deadline then
    mail.kind, mail.arg = 'email.expired', json({reason = 'too old: its time was over at ' .. text(why.deadline),
      class = 'expired', reply = why.reply})
    op_of.dead(mail)
    return 'expired'
  end
  local due = math.min(now_ms + why.wait, why.deadline)
  if why.down then route_down(route_of(mail.lane), now) end
  leave(mail.stream, mail.id)
  schedule(mail.entry, due)
  sooner(due * 1000)
  count('total:deferred', 1)
  count('class:' .. why.class, 1)
  event(mail.kind, mail.producer, mail.entry, mail.event_id, now, with(mail.tail, '"next_attempt_at":' .. text(due)))
  return 'ok'
end

function op_of.park(mail)
  local why = cjson.decode(mail.arg)
  local till = now + (why.wait or 0) * 1000
  if why.down then
    local was = route_state(route_of(mail.lane)).down
    till = math.max(till, route_down(route_of(mail.lane), now))
    if was == 0 then
      event('route.paused', route_of(mail.lane), '', mail.event_id, now,
        '"route":' .. json(route_of(mail.lane)) .. ',"class":' .. json(why.class or 'unreachable'))
    end
  end
  local asked = carried_out(mail)
  if asked then return asked end
  if why.own then -- twice the probe, and the third time it is this mail that is judged
    local notes = notes_of(mail.entry)
    notes.parks = (notes.parks or 0) + 1
    note(mail.entry, notes)
  end
  leave(mail.stream, mail.id)
  park(mail.entry, mail.lane, math.max(till, next_slot(mail.lane, now)))
  sooner(math.max(till, now))
  return 'ok'
end

local spoke = {sent = true, defer = true, dead = true}

for op, entry, token, lane, producer, kind, tail, arg in each() do
  local p, id, stream = split(entry)
  if owns(stream, id, consumer, token) then
    local mail = {entry = entry, id = id, stream = stream, lane = lane, producer = producer, kind = kind, tail = tail,
      arg = arg, event_id = entry .. '.' .. token}
    local refused = op == 'defer' and cjson.decode(arg).down -- judged, and no good word about the route
    if spoke[op] and not refused and lane ~= '' and route_up(route_of(lane), now) then
      event('route.resumed', route_of(lane), '', mail.event_id, now, '"route":' .. json(route_of(lane)))
      sooner(now)
    end
    -- What was sent is neither tried again nor reported as failed.
    local was_sent = op ~= 'sent' and op ~= 'gone' and sent_late(entry, stream, id, producer, mail.event_id, now)
    out[#out + 1] = was_sent and 'ok' or op_of[op](mail)
  else
    -- A 250 that comes too late: the new owner must learn of it before its own dot.
    if not exists(stream, id) then
      forget(entry)
    elseif op == 'sent' then
      local notes = notes_of(entry)
      notes.sent = tail
      note(entry, notes)
      count('late', 1)
    end
    out[#out + 1] = 'fenced'
  end
end

flush()
return {text(now), text(next), unpack(out)}

-- move: an operator's verbs on live mail.
-- needs: base lease index child notes seen event letter dead sha256 whom report
-- KEYS: {streamq}: absent bodies body clock collapse counts dead due events expiry held holds lane lease meta notes
--   parked reports schedule seen shared stream turns
-- ARGV: now verb window at
--   verb    hold, unhold, retry, cancel, bounce, expire      at  unhold: ms, '' for the old time
-- EACH: entry report
--   report  JSON (lib/report) for who is to be told of its end; '-' nobody; '' not known: nothing is done where
--     somebody may be
-- RETURNS: now, next (µs of the next due thing that this call made, 0 none), then a status per row, or per row of the
--   first ones where those were many bytes: nothing was done to the others
--   held scheduled parked cancelled bounced expired       done
--   intended (in delivery, or not read yet: it is done if the attempt does not send it)
--   parked leased waiting held                            nothing to do for that verb in that state
--   relayed                                               its 250 had come, too late for who held it then
--   report                                                nothing was done: its end has a report, bring it
--   missing                                               no such mail
-- EVENTS: email.held email.cancelled email.bounced email.expired; a late email.relayed

local given, verb, window, at = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local now = clock(given)
local now_ms = math.floor(now / 1000)
local token = new_token()
local next = 0
local BYTES, bytes = 4000000, 0 -- read, or written to the dead letters: after so many a call takes no further row
local out = {}

local function sooner(us) if next == 0 or us < next then next = us end end

local function state_of(entry, stream, id)
  local where = place(entry)
  if where then return where end
  if holder(stream, id) then return 'leased' end
  return 'waiting'
end

local verb_of = {}

function verb_of.hold(mail)
  if mail.state == 'held' then return 'held' end
  if mail.state == 'leased' or mail.state == 'waiting' then
    redis.call('HSET', K.holds, 'intent:' .. mail.entry, 'hold')
    return 'intended'
  end
  local notes = notes_of(mail.entry)
  held_for(notes, 'asked for', 'operator')
  notes.due = mail.state == 'scheduled' and tonumber(redis.call('ZSCORE', K.schedule, mail.entry)) or now_ms
  displace(mail.entry, mail.state)
  hold(mail.entry)
  note(mail.entry, notes)
  event('email.held', mail.producer, mail.entry, mail.event_id, now, mail.tail)
  return 'held'
end

function verb_of.unhold(mail)
  drop_intent(mail.entry)
  if mail.state ~= 'held' then return mail.state end
  if is_rereading(mail.p, mail.stream) then return 'held' end
  unhold(mail.entry)
  local notes = notes_of(mail.entry)
  local due = at ~= '' and tonumber(at) or notes.due or now_ms
  need(notes, -1)
  held_no_more(notes)
  notes.due, notes.fields = nil, nil
  note(mail.entry, notes)
  schedule(mail.entry, due)
  sooner(math.max(due * 1000, now))
  return 'scheduled'
end

function verb_of.retry(mail)
  if mail.state == 'scheduled' then
    local notes = notes_of(mail.entry)
    notes.now = 1
    note(mail.entry, notes)
    redis.call('ZADD', K.schedule, 'XX', text(now_ms), mail.entry)
    sooner(now)
  elseif mail.state == 'parked' then
    sooner(now)
  end
  return mail.state
end

-- The end of a mail that no courier has in hand.
local function finish(mail, kind, reason)
  if mail.state == 'leased' then
    if verb ~= 'expire' then redis.call('HSET', K.holds, 'intent:' .. mail.entry, verb) end
    return verb == 'expire' and 'leased' or 'intended'
  end
  if reason and mail.report == '' and is_awaited(mail.fields, mail.entry) then return 'report' end
  displace(mail.entry, mail.state)
  if sent_late(mail.entry, mail.stream, mail.id, mail.producer, mail.event_id, now) then return 'relayed' end
  if reason then
    bytes = bytes + (bury(mail.entry, mail.stream, mail.id, reason, now, window) or 0)
    if mail.report:sub(1, 1) == '{' then mail.tail = with(mail.tail, tell(cjson.decode(mail.report), now)) end
  else
    local map = known_of(mail.fields, mail.entry)
    disown(map, mail.entry, now, window)
    remove(mail.entry, mail.stream, mail.id, map.parent)
  end
  count('total:' .. kind, 1)
  event('email.' .. kind, mail.producer, mail.entry, mail.event_id, now, mail.tail)
  return kind
end

function verb_of.cancel(mail) return finish(mail, 'cancelled', nil) end
function verb_of.bounce(mail)
  return finish(mail, 'bounced', {reason = 'bounced by an operator', class = 'operator'})
end
function verb_of.expire(mail) return finish(mail, 'expired', {reason = 'expired by an operator', class = 'expired'}) end

for entry, report in each() do
  if bytes >= BYTES then break end
  local p, id, stream = split(entry)
  local fields = fields_of(stream, id)
  if not fields then
    out[#out + 1] = 'missing'
  else
    bytes = bytes + letter_bytes(fields)
    local tail, producer, cost = tail_from(fields, entry, (verb == 'unhold' or verb == 'retry') and '' or nil) -- no event
    bytes = bytes + cost
    tail = with(tail, '"class":"operator"')
    out[#out + 1] = verb_of[verb]({entry = entry, p = p, id = id, stream = stream, fields = fields,
      state = state_of(entry, stream, id), tail = tail, producer = producer ~= '' and producer or entry,
      event_id = entry .. '.' .. token, report = report})
  end
end
return {text(now), text(next), unpack(out)}

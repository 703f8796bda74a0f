-- admit: what a consumer has read becomes a lease, or goes where it belongs. Idempotent.
-- needs: base lease index child notes seen event letter dead sha256 whom report route slots shares pace limit
-- KEYS: {streamq}: absent bell bodies body clock collapse counts dead due events expiry held holds lane lease
--   limit limits meta notes parked pauses schedule seen shared slots stream throttled turns
-- ARGV: now consumer window routes
-- EACH: kind entry lane due deadline expires seen id tail why collapse
--   kind       'send', 'expand' (into several: no slot is needed), 'dead' or 'hold': what intake made of it; 'later': it
--     has not looked yet, and will when that is due
--   due        ms, 0 for at once          deadline  ms, when it is too old
--   expires    ms, a deadline of its own for the index, 0 for none
--   seen       '' or 10 bytes digest and 4 bytes content hash; of a child without an id the digest alone, which only
--     a replay notes (resettle)
--   id         the producer's id or the entry      tail  inner JSON for events
--   why        for dead and hold: JSON {reason, class}
--   collapse   '' or 20 digits of the key under which only the newest is sent, and the ms until which it waits
-- RETURNS: now, closed (µs until which none of the worker's routes takes anything, 0 if one does), token, next (µs of
--   the next due thing this call made, 0 none), opens, step, most (what bounds reading: lib/limit, `gate`), then per row:
--   status, notes (JSON or ''), way (the route that it goes; '<route>|<site>' where it is one of so many transactions at
--   once there, which settle and renew are told), slot (its mark: lib/limit, `advance`)
--   status     go parked scheduled held dead duplicate superseded expired cancelled done elsewhere lost,
--     wait: leased, without a slot, since the queue or the only route has none: `turn` gives it one,
--     bouncing or expiring: leased, to end so with a report that the caller brings (settle, dead)
-- EVENTS: email.superseded email.rejected email.held email.duplicate email.expired email.cancelled email.bounced; a late email.relayed

local given, consumer, window = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now = clock(given)
local now_ms = math.floor(now / 1000)
local token = new_token()
local next, closed = 0, 0
local admitted = {} -- p → highest id admitted
local out = {}
local go = {} -- stream → ids that become leases; all of a stream in one XCLAIM
local lanes = {}
local passed = false -- something may go that this worker does not take
local LEASED = {go = true, wait = true, bouncing = true, expiring = true}
local rows_of = {} -- stream .. id → its entry and where its status stands
know_routes(ARGV[4])
gather()
ask_holds(consumer, 2)

local asked, mentioned = {}, {}
for at = HEAD + 3, #ARGV, EACH do
  local lane = ARGV[at]
  local road = road_of(lane)
  if road ~= '' and not mentioned[road] then
    mentioned[road] = true
    asked[#asked + 1] = road
  end
end
ask_queues(asked)

local function sooner(us) if next == 0 or us < next then next = us end end

-- The highest id that was admitted, per priority: at or below it an index may know the entry.
local function known(p, id)
  if admitted[p] == nil then admitted[p] = redis.call('HGET', K.meta, 'admitted:' .. p) or '0-0' end
  if before(admitted[p], id) then
    admitted[p] = id
    return false
  end
  return true
end

-- Standing rules of operators: selector → verb. Only read where there are any.
local function rule_for(entry, id, tail)
  if not has(K.holds) then return nil end
  local read, mail = pcall(cjson.decode, '{' .. tail .. '}') -- its metadata may be deeper than cjson goes
  if not read then mail = {} end
  if id ~= entry then -- two tenants may use the same id
    local name = 'id:' .. id .. (mail.tenant and '\n' .. mail.tenant or '')
    local by_id = redis.call('HGET', K.holds, name)
    if by_id then
      redis.call('HDEL', K.holds, name)
      return by_id
    end
  end
  local asked = {'rule:all', 'rule:priority:' .. NAMES[tonumber(entry:sub(1, 1)) + 1]}
  if mail.site then asked[#asked + 1] = 'rule:domain:' .. mail.site end
  if mail.tenant then asked[#asked + 1] = 'rule:tenant:' .. mail.tenant end
  for _, tag in ipairs(mail.tags or {}) do asked[#asked + 1] = 'rule:tag:' .. tag end
  for _, verb in ipairs(redis.call('HMGET', K.holds, unpack(asked))) do
    if verb then return verb end
  end
  return nil
end

local function event_id(entry) return entry .. '.' .. token end

-- What may have been sent one way goes no other: only that relay can drop the double. Unless nobody has that route any
-- more. (Where it is not known which way it was, it is the first.)
local function bound(lane, notes)
  if notes.stays and (not mine or mine[notes.stays] ~= nil) then return notes.stays .. lane:match('|.*$') end
  if notes.ambiguous and not notes.stays then return route_of(lane) .. lane:match('|.*$') end
  return lane
end

-- A key is of one recipient: tail, that of the mail that takes its place, says who that is.
local function superseded(waits, stream, id, by, tail)
  local fields = fields_of(stream, id)
  unschedule(waits)
  if not fields then return vanish(waits, stream, id) end
  local said, producer = tail_from(fields, waits, whom_in(tail))
  remove(waits, stream, id, known_of(fields, waits).parent)
  count('total:superseded', 1)
  event('email.superseded', producer ~= '' and producer or waits, waits, event_id(waits), now,
    with(said, '"by":"' .. by .. '"'))
end

-- Of a key only the newest is sent: whoever waits for it makes room, and its time stays. ms, or nil where this mail is
-- older than the one that waits: it is superseded. Of those that nobody has looked at (`unread`) the first waits, too:
-- what comes behind it takes its place. It takes nobody's: it may be no mail at all, and then none of its key would go.
-- So an older one that was looked at waits in its stead, and it is looked at now: if it is a mail, it takes that place.
local HASTE = 1000 -- ms: what lies right behind a mail that was late itself may still take its place
local function collapsed(key, till, entry, id, tail, notes, unread)
  till = math.max(till, now_ms + HASTE)
  local waits = redis.call('HGET', K.collapse, key)
  local since = waits and waits ~= entry and redis.call('ZSCORE', K.schedule, waits)
  if since then
    local _, other, stream = split(waits)
    local is_older = before(id, other)
    local is_open = is_older and notes_of(waits).unread
    if unread and (is_open or not is_older) then return now_ms end
    if is_open then
      redis.call('ZADD', K.schedule, 'XX', text(now_ms), waits)
      sooner(now)
    elseif is_older then
      return nil, waits
    else
      superseded(waits, stream, other, entry, tail)
      till = math.max(tonumber(since), now_ms)
    end
  end
  redis.call('HSET', K.collapse, key, entry)
  has_now(K.collapse)
  notes.collapse, notes.unread = key, unread and 1 or nil
  note(entry, notes)
  return till
end

-- The mail is this consumer's and stands nowhere else.
local function decide(kind, entry, p, id, stream, lane, due, deadline, expires, ident, producer, tail, why, collapse)
  if sent_late(entry, stream, id, producer, event_id(entry), now) then return 'done' end
  local notes = notes_of(entry)
  if expires > 0 then expire_at(entry, expires) end
  local reason = why ~= '' and cjson.decode(why)
  local said = reason and with(tail, '"class":' .. json(reason.class) .. ',"reason":' .. json(reason.reason))
  if kind == 'dead' then
    bury(entry, stream, id, reason, now, window)
    count('total:rejected', 1)
    event('email.rejected', producer, entry, event_id(entry), now, said)
    return 'dead'
  end
  if ident ~= '' then
    local digest, hash = ident:sub(1, 10), ident:sub(11)
    local owner, owner_hash
    if hash == '' then
      owner = seen(digest, now, window)
    else
      owner, owner_hash = see(digest, hash .. pack_entry(entry), now, window)
    end
    if owner and owner ~= entry and
      (hash == '' or same_content(owner, owner_hash, hash, digest, stream, id, now, window)) then
      remove(entry, stream, id, parent_in(tail))
      count('total:duplicate', 1)
      event('email.duplicate', producer, entry, event_id(entry), now, with(tail, '"of":"' .. owner .. '"'))
      return 'duplicate'
    elseif owner and owner ~= entry then
      local reason = 'id: same id, other content, as entry ' .. owner
      bury(entry, stream, id, {reason = reason, class = 'id_conflict'}, now, window)
      count('total:rejected', 1)
      event('email.rejected', producer, entry, event_id(entry), now, with(tail, '"class":"id_conflict","reason":' .. json(reason)))
      return 'dead'
    elseif owner_hash == UNHASHED then
      hashed(digest, hash, entry, now, window)
    end
  end
  local asked = intent_of(entry) or rule_for(entry, producer, tail)
  if asked == 'hold' then
    drop_intent(entry)
    leave(stream, id)
    hold(entry)
    held_for(notes, 'asked for', 'operator')
    notes.due = due > 0 and due or nil
    note(entry, notes)
    event('email.held', producer, entry, event_id(entry), now, with(tail, '"class":"operator"'))
    return 'held'
  elseif asked == 'cancel' then
    if ident ~= '' then unsee(ident:sub(1, 10), entry, now, window) end
    remove(entry, stream, id, parent_in(tail))
    count('total:cancelled', 1)
    event('email.cancelled', producer, entry, event_id(entry), now, tail)
    return 'cancelled'
  elseif asked == 'bounce' and is_awaited(fields_of(stream, id), entry) then
    redis.call('HSET', K.holds, 'intent:' .. entry, 'bounce') -- a rule by its id is none any more
    listed(go, stream, id)
    return 'bouncing'
  elseif asked == 'bounce' then
    bury(entry, stream, id, {reason = 'bounced by an operator', class = 'operator'}, now, window)
    count('total:bounced', 1)
    event('email.bounced', producer, entry, event_id(entry), now, with(tail, '"class":"operator"'))
    return 'dead'
  end
  if kind == 'hold' then
    leave(stream, id)
    hold(entry)
    held_for(notes, reason.reason, reason.class)
    notes.fields = reason.fields
    note(entry, notes)
    need(notes, 1)
    event('email.held', producer, entry, event_id(entry), now, said)
    return 'held'
  end
  if now_ms >= deadline and is_awaited(fields_of(stream, id), entry) then
    listed(go, stream, id)
    return 'expiring'
  elseif now_ms >= deadline then
    bury(entry, stream, id, {reason = 'too old: its time was over at ' .. text(deadline), class = 'expired'}, now, window)
    count('total:expired', 1)
    event('email.expired', producer, entry, event_id(entry), now, with(tail, '"class":"expired"'))
    return 'expired'
  end
  if collapse ~= '' and (kind == 'send' or kind == 'later') and not notes.waited and not notes.now then
    local key, waits = collapse:sub(1, 20), tonumber(collapse:sub(21))
    local till, by = collapsed(key, waits, entry, id, tail, notes, kind == 'later')
    if not till then
      remove(entry, stream, id, parent_in(tail))
      count('total:superseded', 1)
      event('email.superseded', producer, entry, event_id(entry), now, with(tail, '"by":"' .. by .. '"'))
      return 'superseded'
    end
    due = math.max(due, till)
  end
  if kind == 'later' or due > now_ms and not notes.now then -- an operator's `retry` outranks send_at
    due = math.min(math.max(due, now_ms + 1), deadline)
    leave(stream, id)
    schedule(entry, due)
    sooner(due * 1000)
    return 'scheduled'
  end
  if kind == 'expand' then
    listed(go, stream, id)
    return 'go', ''
  end
  -- A newcomer never overtakes its own lane; a better priority than all that is parked there may.
  local wait, way, slot = 0, nil, nil
  lane = bound(lane, notes)
  lanes[lane] = true
  local queue = queue_of(road_of(lane))
  if queue.urgency and queue.urgency <= p then -- nor does it bring the lane's next visit forward
    queue.slot = queue.slot or next_slot(lane, now)
    wait = math.max(queue.slot, queue.visit, now)
  elseif queue.urgency and whose_turn(lane, p, queue.waits, now) ~= p and next_slot(lane, now) == 0 then
    wait, way = now, 'site' -- this one is a lower one's, which waits: `release` gives it that
  else
    wait, way, slot = take_slot(lane, now, consumer, entry)
  end
  if wait == 0 then
    if queue.urgency then turn_taken(way, site_in(lane)) end
    listed(go, stream, id)
    return 'go', way, slot
  elseif stops_reading(way) then
    listed(go, stream, id)
    return 'wait'
  end
  passed = passed or way == 'others'
  leave(stream, id)
  park(entry, lane, wait, p, id)
  queue.waits[p] = true
  if not queue.urgency or p < queue.urgency then queue.urgency, queue.visit = p, wait end
  sooner(wait)
  return 'parked'
end

for kind, entry, lane, due, deadline, expires, ident, producer, tail, why, collapse in each() do
  local p, id, stream = split(entry)
  local status, way, slot
  if not held_token(stream, id, consumer) then
    status = 'lost'
  elseif known(p, id) and place(entry) then
    leave(stream, id)
    status = 'elsewhere'
  else
    status, way, slot = decide(kind, entry, p, id, stream, lane, tonumber(due), tonumber(deadline),
      tonumber(expires), ident, producer, tail, why, collapse)
  end
  out[#out + 1] = status
  if LEASED[status] then rows_of[stream .. id] = {at = #out, entry = entry, way = way or ''} end
  out[#out + 1] = LEASED[status] and has(K.notes) and redis.call('HGET', K.notes, entry) or ''
  out[#out + 1] = way or ''
  out[#out + 1] = slot or ''
end

-- Of the worker's routes, or, where it did not say, of these mails': nothing is read while all are closed.
local function all_closed()
  local soonest
  for route, used in pairs(mine or {}) do
    local till = used and closed_until(route, now) or now + OTHERS_TURN
    if till <= now then return 0 end
    soonest = math.min(soonest or till, till)
  end
  for lane in pairs(mine and {} or lanes) do
    local way, opens = open_way(lane:match('^[^|]*|'), now) -- of a site that is closed alone others go on
    if way then return 0 end
    soonest = math.min(soonest or opens, opens)
  end
  return soonest and math.min(soonest, now + LOOK) or 0
end

for stream, ids in pairs(go) do
  for _, id in ipairs(stamp_all(stream, ids, consumer, token)) do
    local row = rows_of[stream .. id]
    out[row.at] = 'lost' -- somebody deleted its entry
    vanish(row.entry, stream, id)
    if site_in(row.way) then slot_left(row.way, consumer, row.entry) end
  end
end
flush()
closed = all_closed()
if passed and redis.call('XLEN', K.bell) == 0 then redis.call('XADD', K.bell, '*', 'due', '1') end
for p, id in pairs(admitted) do redis.call('HSET', K.meta, 'admitted:' .. p, id) end
keep_turns()
keep_limits(now)
if keep_slots(now) then sooner(now) end
local opens, step, most = gate(now)
keep_paces(now)
return {text(now), text(closed), token, text(next), text(opens), text(step), text(most), unpack(out)}

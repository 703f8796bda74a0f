-- reclaim: leases whose heartbeat stopped become this consumer's; a mail that killed too many is dead.
-- needs: base lease index child notes seen event letter dead sha256 whom
-- KEYS: {streamq}: absent bell bodies body clock collapse counts dead dots events expiry held holds lane lease meta
--   notes parked schedule seen stream
-- ARGV: now consumer window idle room most cursor suspects
--   idle    ms without a heartbeat       room  leases this consumer can take (at most 100)
--   most    reclaims before a mail is poison
--   cursor  '' or '<p><id>': where the sweep goes on
--   suspects  how many mails that were reclaimed twice before the consumer has in hand: it gets one at a time, so
--     that what dies with a mail that kills its worker is that mail and not its neighbours; '' for as many as come
-- RETURNS: now, token, cursor ('' at the end), then per lease: entry, notes (JSON), ambiguous (1: its last owner
--   died past its dot)
-- EVENTS: email.ambiguous email.failed

local given, consumer, window = ARGV[1], ARGV[2], tonumber(ARGV[3])
local idle, room, most, cursor = ARGV[4], math.min(tonumber(ARGV[5]), 100), tonumber(ARGV[6]), ARGV[7]
local suspects = tonumber(ARGV[8])
local SUSPECT = 2
local COSTS, costs = 4000000, 0 -- of lib/whom: after so many the sweep goes on in another call
local now = clock(given)
local token = 0
local out = {}

local past_dot -- entry → consumer → route (true: not known), of all dots; read once, and only where something is reclaimed
local function was_past_dot(entry, who)
  if not past_dot then
    past_dot = {}
    local dots = redis.call('HGETALL', K.dots)
    for at = 1, #dots, 2 do
      for named in dots[at + 1]:gmatch('[^,]+') do
        local who, connection = dots[at]:match('^(.*)/([^/]*)$')
        past_dot[named] = past_dot[named] or {}
        past_dot[named][who] = connection:match('^(.+)%.%d+$') or true
      end
    end
  end
  return past_dot[entry] and past_dot[entry][who] or false
end

local function reclaim(p, stream, id, who)
  local entry = p .. id
  if place(entry) then return leave(stream, id) end
  if who == consumer then return nil end -- it stood still itself, and knows what it has
  local notes = notes_of(entry)
  if suspects and (notes.reclaims or 0) >= SUSPECT and notes.reclaims < most then
    if suspects > 0 then return nil end
    suspects = suspects + 1
  end
  if token == 0 then token = new_token() end
  local ambiguous = was_past_dot(entry, who)
  local tail, producer = '', ''
  if ambiguous or (notes.reclaims or 0) >= most then -- only here: a body of 25 MB is not read for nothing
    local fields = fields_of(stream, id)
    if not fields then return vanish(entry, stream, id) end
    local cost
    tail, producer, cost = tail_from(fields, entry)
    costs = costs + cost
  end
  notes.reclaims = (notes.reclaims or 0) + 1
  count('reclaimed', 1)
  if notes.reclaims > most and not notes.sent then
    local reason = 'its worker died ' .. notes.reclaims .. ' times while it had this mail'
    bury(entry, stream, id, {reason = reason, class = 'poison'}, now, window)
    count('total:failed', 1)
    tail = with(tail, '"class":"poison","reason":' .. json(reason))
    return event('email.failed', producer ~= '' and producer or entry, entry, entry .. '.' .. token, now, tail)
  end
  if ambiguous then
    notes.ambiguous = (notes.ambiguous or 0) + 1
    notes.stays = type(ambiguous) == 'string' and ambiguous or notes.stays -- the way it may have been sent
    count('total:ambiguous', 1)
    event('email.ambiguous', producer ~= '' and producer or entry, entry, entry .. '.' .. token, now, tail)
  end
  if not stamp(stream, id, consumer, token) then return vanish(entry, stream, id) end
  note(entry, notes)
  admitted_to(p, id)
  out[#out + 1] = entry
  out[#out + 1] = cjson.encode(notes)
  out[#out + 1] = ambiguous and 1 or 0
end

-- The bell first: where its group is gone nothing has been done yet.
for _, row in ipairs(redis.call('XPENDING', K.bell, GROUP, 'IDLE', idle, '-', '+', 10)) do
  redis.call('XACK', K.bell, GROUP, row[1])
  redis.call('XDEL', K.bell, row[1])
end

local start_p, start_id = 0, '-'
if cursor ~= '' then start_p, start_id = tonumber(cursor:sub(1, 1)), '(' .. cursor:sub(2) end
local reached = ''
local examined = 0
for p = start_p, #NAMES - 1 do
  local stream = K.stream(NAMES[p + 1])
  local from = p == start_p and start_id or '-'
  local many = room - #out / 3
  if many < 1 or examined >= 100 then
    reached = p .. (from == '-' and '0-0' or from:sub(2))
    break
  end
  local stalled = redis.call('XPENDING', stream, GROUP, 'IDLE', idle, from, '+', many)
  for _, row in ipairs(stalled) do
    examined = examined + 1
    reclaim(p, stream, row[1], row[2])
    reached = p .. row[1]
    if costs >= COSTS then break end
  end
  if #stalled == many or costs >= COSTS then break end
  reached = ''
end
return {text(now), token, reached, unpack(out)}

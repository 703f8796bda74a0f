-- sift: reads on where most of what comes goes to closed lanes. Plain mails of those go from waiting to parked
-- without leaving the server; all others become this consumer's, as XREADGROUP would have made them. No slot is
-- taken here. A mail that was read before, that a rule is for, whose id is known already, that is large and has one, or
-- whose time is over is left to admission.
-- needs: base lease index child notes seen route limit
-- KEYS: {streamq}: absent clock counts due held holds lane limit limits meta parked pauses seen stream
-- ARGV: now consumer window p route room most max_age max_bytes
--   p          digit of the priority                    route      of every plain mail
--   room       mails that this consumer takes at most   most       mails that are visited at most, 0 to 100
--   max_age    ms                                       max_bytes  of a mail's fields
-- RETURNS: now, closed (µs until which the route is closed, 0 if open: then nothing is read), next (µs at which a
--   lane may be visited that this call has filled, 0 none), visited, parked, large (1: a mail came that should not
--   travel through a script), then per mail taken: entry, its fields
-- EVENTS: none

local given, consumer, window, digit, route = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local p, room, most = tonumber(digit), tonumber(ARGV[6]), math.min(tonumber(ARGV[7]), 100)
local max_age, max_bytes = tonumber(ARGV[8]), tonumber(ARGV[9])
local now = clock(given)
local now_ms = math.floor(now / 1000)
local stream = STREAMS[p + 1]

local way, closed = open_way(route .. '|', now)
if way then closed = 0 end
local last = delivered(stream)
if closed > 0 or not last or is_rereading(p, stream) then return {text(now), text(closed), '0', 0, 0, 0} end

-- As glance.py: fields none of which decides when, which way, or by which rule a mail goes.
local PLAIN = {
  id = 1, raw = 1, envelope_from = 1, envelope_to = 1, from = 1, to = 1, subject = 1, text = 1, html = 1,
  reply_to = 1, sender = 1, headers = 1, auto_text = 1, attachments = 1, metadata = 1, traceparent = 1, sensitive = 1, on_ambiguous = 1,
}
local ADDRESS = "^([%w!#$%%&'*+/=?^_`{|}~.-]+)@([%w.-]+)$"
local DOT = string.byte('.')

-- Whether an operator has said something about mails to a site that admission must carry out.
local function is_ruled(site)
  if not has(K.holds) then return false end
  local found = redis.call('HMGET', K.holds, 'rule:all', 'rule:priority:' .. NAMES[p + 1], 'rule:domain:' .. site)
  return found[1] or found[2] or found[3]
end

-- µs at which the lane may be visited; nil where it is open: admission takes its slots.
local function wait_of(lane)
  local queue = queue_of(lane)
  local slot, scope = next_slot(lane, now)
  if queue.urgency and queue.urgency <= p then return math.max(slot, queue.visit, now) end
  return slot > now and not (scope == 'queue' or scope == 'route') and slot or nil
end

-- A domain's lane, where its mails may park; false where only admission can tell. Labels are of letters, digits and
-- inner hyphens.
local lanes = {}
local function lane_for(domain)
  local lane = lanes[domain]
  if lane == nil then
    local site, bare = domain:lower(), '.' .. domain .. '.'
    local good = domain:find('.', 1, true) and not bare:find('..', 1, true) and not bare:find('.-', 1, true) and
      not bare:find('-.', 1, true)
    local wait = good and not is_ruled(site) and wait_of(route .. '|' .. site)
    lane = wait and {name = route .. '|' .. site, wait = wait, rows = {}} or false
    lanes[domain] = lane
  end
  return lane
end

-- A mail's lane, and the producer's id, '' without one; nil or false where only intake can tell. And its bytes.
local function glance(fields)
  local id, raw, to, envelope_to, size, plain = '', false, '', '', 0, true
  for at = 1, #fields, 2 do
    local name, value = fields[at], fields[at + 1]
    size = size + #value
    if name == 'id' then id = value
    elseif name == 'envelope_to' then envelope_to = value
    elseif name == 'raw' then raw = true
    elseif name == 'to' then to = value
    elseif not PLAIN[name] then plain = false
    end
  end
  if envelope_to == '' then envelope_to = raw and '' or to end
  if not plain or size > max_bytes or #envelope_to > 128 or #id > 256 or id:find('[^!-~]') then return nil, id, size end
  local mailbox, domain = envelope_to:match(ADDRESS)
  if not mailbox or mailbox:find('..', 1, true) then return nil, id, size end
  if mailbox:byte(1) == DOT or mailbox:byte(-1) == DOT then return nil, id, size end
  return lane_for(domain), id, size
end

local admitted = redis.call('HGET', K.meta, 'admitted:' .. p) or '0-0'
local oldest = text(math.max(now_ms - max_age, 0)) .. '-' .. text(2 ^ 63)
local in_time = false -- ids grow: behind the first that is new to admission, and not too old, all are
local taken, ids, at = {}, {}, last
local visited, parked, next = 0, 0, 0
local highest -- that is parked
local LARGE, BYTES_MOST = 65536, 1000000

-- Its bytes.
local function visit(id, fields)
  in_time = in_time or (before(admitted, id) and before(oldest, id))
  local lane, producer, size = glance(fields)
  local parks = in_time and lane
  if parks and has(K.holds) then
    parks = not intent_of(digit .. id) and redis.call('HEXISTS', K.holds, 'id:' .. producer) == 0
  end
  local ms, seq
  if parks then
    ms, seq = id_parts(id)
    if producer ~= '' then -- a large one is hashed first: whoever has its id, too, would be compared with all of it
      parks = size <= LARGE and not see(digest_of('', producer), pack_id(UNHASHED, digit, ms, seq), now, window)
    end
  end
  if parks then
    local rows = lane.rows
    local last = #rows
    rows[last + 1], rows[last + 2], rows[last + 3] = id, ms, seq
    parked = parked + 1
    highest = id
  else
    taken[#taken + 1] = {digit .. id, fields}
    ids[#ids + 1] = id
  end
  return size
end

-- One at a time: nobody knows how large the next one is, and a hundred of 25 MB would hold up the server for seconds.
local size, bytes = 0, 0
while visited < most and #taken < room and bytes < BYTES_MOST and size <= LARGE do
  local row = behind(stream, at, '+', '1')[1]
  if not row then break end
  at = row[1]
  size = visit(at, row[2])
  bytes = bytes + size
  visited = visited + 1
end

if visited > 0 then
  for _, lane in pairs(lanes) do
    if lane and #lane.rows > 0 then
      park_all(lane.name, lane.rows, lane.wait, p)
      if next == 0 or lane.wait < next then next = lane.wait end
    end
  end
  if #ids > 0 then read_by(stream, ids, consumer) end
  pass(stream, at)
  if highest then admitted_to(p, highest) end
end
local out = {text(now), '0', text(next), visited, parked, size > LARGE and 1 or 0}
for _, mail in ipairs(taken) do
  out[#out + 1] = mail[1]
  out[#out + 1] = mail[2]
end
return out

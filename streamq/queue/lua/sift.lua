-- sift: reads on where most of what comes goes to closed lanes. Plain mails of those go from waiting to parked
-- without leaving the server; all others become this consumer's, as XREADGROUP would have made them. No slot is
-- taken here. A mail that was read before, that a rule is for, whose id is known already, that is large and has one, or
-- whose time is over is left to admission.
-- needs: base lease index child notes seen route slots pace limit
-- KEYS: {streamq}: absent clock counts due held holds lane limit limits meta parked pauses seen slots stream
--   throttled
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

-- As glance.py: fields none of which decides when, which way, or by which rule a mail goes. Each holds the number of the
-- last mail that had it: who has it again was given it twice.
local PLAIN = {
  id = 0, raw = 0, envelope_from = 0, envelope_to = 0, from = 0, to = 0, subject = 0, text = 0, html = 0,
  reply_to = 0, sender = 0, headers = 0, auto_text = 0, attachments = 0, metadata = 0, traceparent = 0, sensitive = 0, on_ambiguous = 0,
}
local find, match = string.find, string.match
-- No dot at the beginning; where two would meet, or one the @, is looked for by itself.
local ADDRESS = "^[%w!#$%%&'*+/=?^_`{|}~-][%w!#$%%&'*+/=?^_`{|}~.-]*@([%w.-]+)$"

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
  local site, bare = domain:lower(), '.' .. domain .. '.'
  local good = domain:find('.', 1, true) and not bare:find('..', 1, true) and not bare:find('.-', 1, true) and
    not bare:find('-.', 1, true)
  local wait = good and not is_ruled(site) and wait_of(route .. '|' .. site)
  lanes[domain] = wait and {name = route .. '|' .. site, wait = wait, rows = {}} or false
  return lanes[domain]
end

-- A mail's lane, and the producer's id, '' without one; nil or false where only intake can tell. And its bytes.
local glances = 0
local function glance(fields)
  local id, raw, to, envelope_to -- nil: not given
  local size, plain, turn, had = 0, true, glances + 1, PLAIN
  glances = turn
  for at = 1, #fields, 2 do
    local name, value = fields[at], fields[at + 1]
    size = size + #value
    if name == 'id' then id, plain = value, plain and not id
    elseif name == 'envelope_to' then envelope_to, plain = value, plain and not envelope_to
    elseif name == 'raw' then raw, plain = true, plain and not raw
    elseif name == 'to' then to, plain = value, plain and not to
    elseif (had[name] or turn) == turn then plain = false
    else had[name] = turn
    end
  end
  id, to, envelope_to = id or '', to or '', envelope_to or ''
  if envelope_to == '' then envelope_to = raw and '' or to end
  if not plain or size > max_bytes or #envelope_to > 128 or #id > 256 or find(id, '[^!-~]') then return nil, id, size end
  local domain = match(envelope_to, ADDRESS)
  if not domain or find(envelope_to, '%.[.@]') then return nil, id, size end
  local lane = lanes[domain]
  if lane == nil then lane = lane_for(domain) end
  return lane, id, size
end

local admitted = redis.call('HGET', K.meta, 'admitted:' .. p) or '0-0'
local oldest = text(math.max(now_ms - max_age, 0)) .. '-' .. text(2 ^ 63)
local in_time = false -- ids grow: behind the first that is new to admission, and not too old, all are
local taken, ids, at = {}, {}, last
local visited, parked, next, size, bytes = 0, 0, 0, 0, 0
local highest -- that is parked
local LARGE, BYTES_MOST = 65536, 1000000

-- One at a time: nobody knows how large the next one is, and a hundred of 25 MB would hold up the server for seconds.
-- Behind a run of small ones four, each read for a fifth less; the worst that can come of it is four of 25 MB, of which
-- the first ends the call. (Two at a time saved a third of that: a longer reply is copied once more.)
local RUN, SMALL, AHEAD = 8, 16384, '4'
local run = 0 -- of mails that were small
local ahead, next_row = {}, 1 -- read and not visited
local function row_behind()
  if not ahead[next_row] then ahead, next_row = behind(stream, at, '+', run >= RUN and AHEAD or '1'), 1 end
  next_row = next_row + 1
  return ahead[next_row - 1]
end

-- What is known of a mail before its producer's id is looked up: id, fields, lane (false where only admission can tell),
-- ms, seq, and where its id stands among `digests` (0 without one).
local COLUMNS = 6

-- On in the stream, as long as there is room even if all ids were known.
local function look_on()
  local page, filled, digests, owners, unsure = {}, 0, {}, {}, #taken
  while visited < most and unsure < room and bytes < BYTES_MOST and size <= LARGE do
    local row = row_behind()
    if not row then break end
    local id, fields, lane, producer, ms, seq = row[1], row[2]
    local nth = 0
    lane, producer, size = glance(fields)
    in_time = in_time or (before(admitted, id) and before(oldest, id))
    lane = in_time and lane or false
    if lane and has(K.holds) and (intent_of(digit .. id) or redis.call('HEXISTS', K.holds, 'id:' .. producer) == 1) then
      lane = false
    end
    -- A large one is hashed first: whoever has its id, too, would be compared with all of it.
    if lane and producer ~= '' and size > LARGE then lane = false end
    if lane then
      ms, seq = id_parts(id)
      if producer ~= '' then
        nth = #digests + 1
        digests[nth], owners[nth] = digest_of('', producer), pack_id(UNHASHED, digit, ms, seq)
      end
    end
    if not lane or nth > 0 then unsure = unsure + 1 end
    page[filled + 1] = id
    page[filled + 2] = fields
    page[filled + 3] = lane
    page[filled + 4] = ms or 0
    page[filled + 5] = seq or 0
    page[filled + 6] = nth
    filled = filled + COLUMNS
    at, visited, bytes = id, visited + 1, bytes + size
    run = size <= SMALL and run + 1 or 0
  end
  return page, filled, see_all(digests, owners, now, window)
end

repeat
  local page, filled, known = look_on()
  for row = 1, filled, COLUMNS do
    local id, lane = page[row], page[row + 2]
    if lane and not known[page[row + 5]] then
      local rows, last = lane.rows, #lane.rows
      rows[last + 1] = id
      rows[last + 2] = page[row + 3]
      rows[last + 3] = page[row + 4]
      parked = parked + 1
      highest = id
    else
      taken[#taken + 1] = {digit .. id, page[row + 1]}
      ids[#ids + 1] = id
    end
  end
until filled == 0

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

-- sift: reads on where most of what comes goes to closed lanes. What a worker has seen of a stream (sift.py) is passed in
-- its order: plain mails of closed lanes go from waiting to parked, all others become this consumer's, as XREADGROUP
-- would have made them. No slot is taken here. A mail that was read before, that a rule is for, whose id is known
-- already, or whose time is over is left to admission.
-- needs: base lease index child notes seen route slots pace limit shut
-- KEYS: {streamq}: absent clock counts due held holds lane limit limits meta parked pauses seen slots stream
--   throttled
-- ARGV: now consumer window p route room max_age from
--   p        digit of the priority                   route   of every plain mail
--   room     mails that this consumer takes at most: the call ends before the first one beyond
--   max_age  ms                                      from    id behind which the worker looked; '': nobody did
-- EACH: id site digest producer
--   site      of a plain mail, where it could park; '' where only admission can tell
--   digest    of its producer's id; '' without one         producer  that id
-- RETURNS: now, closed (µs until which the route is closed, 0 if open: then nothing is passed), next (µs at which a lane
--   may be visited that this call has filled, 0 none), from (id of the last mail that was passed by anybody, '' where this
--   is not the way to read on), and what became of the first rows: a letter each, p (parked) or t (this consumer's)
-- EVENTS: none

local given, consumer, window, digit, route = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local p, room, max_age, from = tonumber(digit), tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
local now = clock(given)
local now_ms = math.floor(now / 1000)
local stream = STREAMS[p + 1]

local way, closed = open_way(route .. '|', now)
if not way then return {text(now), text(closed), '0', '', ''} end
local last = delivered(stream)
if not last or is_rereading(p, stream) then return {text(now), '0', '0', '', ''} end
if last ~= from or #ARGV == HEAD then return {text(now), '0', '0', last, ''} end -- another one has read on

-- Whether an operator has said something about mails to a site that admission must carry out.
local function is_ruled(site)
  if not has(K.holds) then return false end
  local found = redis.call('HMGET', K.holds, 'rule:all', 'rule:priority:' .. NAMES[p + 1], 'rule:domain:' .. site)
  return found[1] or found[2] or found[3]
end

-- A site's lane, where its mails park; false where only admission can tell.
local lanes = {['']=false}
local function lane_for(site)
  local wait = not is_ruled(site) and shut_until(route .. '|' .. site, p, now)
  lanes[site] = wait and {name = route .. '|' .. site, wait = wait, rows = {}} or false
  return lanes[site]
end

local holds_any = has(K.holds)
local function is_ordered(id, producer) -- by an operator, of this mail
  return intent_of(digit .. id) or redis.call('HEXISTS', K.holds, 'id:' .. producer) == 1
end

local admitted = redis.call('HGET', K.meta, 'admitted:' .. p) or '0-0'
local oldest = text(math.max(now_ms - max_age, 0)) .. '-' .. text(2 ^ 63)
local in_time = false -- ids grow: behind the first that is new to admission, and not too old, all are

-- What may park, and up to which row at most: the others among them are more than this consumer takes.
local may_park, times, seqs = {}, {}, {} -- nth row → its lane, the parts of its id
local digests, owners, named = {}, {}, {} -- named: nth row → which digest
local argv = ARGV -- a global is looked for by its name, each time
local many, others, nth = (#ARGV - HEAD) / EACH, 0, 0
for at = HEAD + 1, #ARGV, EACH do
  local id, site, digest = argv[at], argv[at + 1], argv[at + 2]
  in_time = in_time or (before(admitted, id) and before(oldest, id))
  local lane = lanes[site]
  if lane == nil then lane = lane_for(site) end
  nth = nth + 1
  if lane and in_time and not (holds_any and is_ordered(id, argv[at + 3])) then
    local ms, seq = id_parts(id)
    may_park[nth], times[nth], seqs[nth] = lane, ms, seq
    if digest ~= '' then
      local last = #digests + 1
      digests[last], owners[last], named[nth] = digest, pack_id(UNHASHED, digit, ms, seq), last
    end
  elseif others >= room then
    many = nth - 1
    break
  else
    others = others + 1
  end
end
local known = see_all(digests, owners, now, window)

local letters, taken = {}, {}
local passed, highest -- of all, of those that are parked
local next = 0
for nth = 1, many do
  local id, lane, which = argv[HEAD + 1 + (nth - 1) * EACH], may_park[nth], named[nth]
  if lane and not (which and known[which]) then
    local rows = lane.rows
    local filled = #rows
    rows[filled + 1], rows[filled + 2], rows[filled + 3] = id, times[nth], seqs[nth]
    highest = id
    letters[nth] = 'p'
  elseif #taken >= room then -- what stands behind it is as it was
    for behind = nth, many do
      which = named[behind]
      if which and not known[which] then disclaim(digests[which], now, window) end
    end
    break
  else
    taken[#taken + 1] = id
    letters[nth] = 't'
  end
  passed = id
end

if passed then
  for _, lane in pairs(lanes) do
    if lane and #lane.rows > 0 then
      park_all(lane.name, lane.rows, lane.wait, p)
      if next == 0 or lane.wait < next then next = lane.wait end
    end
  end
  if #taken > 0 then read_by(stream, taken, consumer) end
  pass(stream, passed)
  if highest then admitted_to(p, highest) end
end
return {text(now), '0', text(next), passed or last, table.concat(letters)}

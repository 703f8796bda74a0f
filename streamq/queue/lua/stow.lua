-- stow: sift's way for a page of which all parks: plain mails of closed lanes, with new ids or none, while no operator's word
-- stands about them, or about any single mail. What a row needs was made by who looked at it (stow.py), so that little is done for each here.
-- If one of them is anything else nothing is done: sift decides.
-- needs: base lease index seen route slots pace limit shut
-- KEYS: {streamq}: absent clock counts due held holds lane limit limits meta parked pauses seen slots stream throttled
-- ARGV: now window p route max_age from sites ids lanes
--   p        digit of the priority                   route  of these mails
--   max_age  ms                                      from   id behind which the worker looked
--   sites    comma list: whose mails these are
--   ids      comma list of '<bucket>:<row>:<many>': from that row, the first is 1, so many have ids of that bucket (lib/seen)
--   lanes    comma list of '<bucket>:<site>:<row>:<many>': so many are of that site, by its place in the list, and stand in
--     that bucket of lanes (lib/index)
-- EACH: entry member digest owner
--   member  as it stands among the parked            digest  of its producer's id, no two the same; '' without one
--   owner   the entry as an id's owner, unhashed (lib/seen)
-- RETURNS: as sift; s in place of the letters: sift decides
-- EVENTS: none

local p, route, from = tonumber(ARGV[3]), ARGV[4], ARGV[6]
local now, window = clock(ARGV[1]), tonumber(ARGV[2])
local stream, argv = STREAMS[p + 1], ARGV -- a global is looked for by its name, each time
local UNDECIDED = {text(now), '0', '0', '', 's'}

local way, closed = open_way(route .. '|', now)
if not way then return {text(now), text(closed), '0', '', ''} end
local last = delivered(stream)
if not last or is_rereading(p, stream) then return {text(now), '0', '0', '', ''} end
if last ~= from then return {text(now), '0', '0', last, ''} end -- another one has read on
local is_of, sites = {}, ARGV[7]
for site in sites:gmatch('[^,]+') do is_of['rule:domain:' .. site] = true end
is_of['rule:all'], is_of['rule:priority:' .. NAMES[p + 1]] = true, true

-- Whether an operator's word may be about one of them: standing rules by what they are of, and any word about a mail.
local FEW_WORDS = 100
local function is_spoken_of()
  if not has(K.holds) then return false end
  if redis.call('HLEN', K.holds) > FEW_WORDS then return true end
  for _, word in ipairs(redis.call('HKEYS', K.holds)) do
    if is_of[word] or word:match('^intent:') or word:match('^id:') then return true end
  end
  return false
end
if is_spoken_of() then return UNDECIDED end

local first_id, last_id = sub(argv[HEAD + 1], 2), sub(argv[#argv - EACH + 1], 2) -- ids grow
local oldest = text(math.max(math.floor(now / 1000) - tonumber(ARGV[5]), 0)) .. '-' .. text(2 ^ 63)
if not before(redis.call('HGET', K.meta, 'admitted:' .. p) or '0-0', first_id) or not before(oldest, first_id) then
  return UNDECIDED
end

local lanes, waits = {}, {}
for site in sites:gmatch('[^,]+') do
  local lane = route .. '|' .. site
  local wait = shut_until(lane, p, now)
  if not wait then return UNDECIDED end
  lanes[#lanes + 1], waits[#waits + 1] = lane, wait
end

-- The field of so many rows, behind what stands in the list; with what goes behind each.
local function fields_in(list, row, many, field, other)
  local filled = #list
  for at = HEAD + (row - 1) * EACH, HEAD + (row + many - 2) * EACH, EACH do
    filled = filled + 1
    list[filled] = argv[at + field]
    if other then
      filled = filled + 1
      list[filled] = type(other) == 'number' and argv[at + other] or other
    end
  end
  return list
end

local function any_in(key, digests)
  digests[2] = key
  for _, found in ipairs(redis.call(unpack(digests))) do
    if found then return true end
  end
  return false
end

local ids = {}
for bucket, row, many in ARGV[8]:gmatch('(%d+):(%d+):(%d+)') do
  local this, before_it = bucket_keys(bucket, now, window)
  row, many = tonumber(row), tonumber(many)
  local digests = fields_in({'HMGET', this}, row, many, 3)
  if any_in(this, digests) or before_it and any_in(before_it, digests) then return UNDECIDED end
  ids[#ids + 1] = {this, row, many}
end
if #ids > 0 then note_generation(now, window) end
for _, each in ipairs(ids) do own_all(each[1], fields_in({'HSET', each[1]}, each[2], each[3], 3, 4)) end

local members, filled = {'ZADD', K.parked}, 2
for at = HEAD + 1, #ARGV, EACH do
  members[filled + 1], members[filled + 2] = '0', argv[at + 1]
  filled = filled + 2
end
redis.call(unpack(members))
for bucket, site, row, of in ARGV[9]:gmatch('(%d+):(%d+):(%d+):(%d+)') do
  local lane = lanes[tonumber(site)]
  redis.call(unpack(fields_in({'HSET', K.lane(bucket)}, tonumber(row), tonumber(of), 1, lane)))
end
local next = waits[1]
for nth, lane in ipairs(lanes) do
  redis.call('ZADD', K.due(NAMES[p + 1]), 'LT', text(waits[nth]), lane)
  next = math.min(next, waits[nth])
end
local many = (#ARGV - HEAD) / EACH
count('parked:' .. p, many)
pass(stream, last_id)
admitted_to(p, last_id)
return {text(now), '0', text(next), last_id, string.rep('p', many)}

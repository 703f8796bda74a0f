-- finish: plain mails that were sent leave, with their events: those of whose route and site nothing has to be learnt or
-- said, and with nothing about them but what goes with them. For all others it says so, and `settle` does it. Fenced: only
-- who holds the entry under that token changes anything.
-- needs: base lease child event route slots outcome plain
-- KEYS: {streamq}: absent bodies body clock collapse counts due events expiry holds limit meta notes parked pauses slots stream
--   throttled
-- ARGV: now consumer at_once
--   at_once  comma list: the rows, from 1, that are among so many transactions at once of their way
-- EACH: entry token way id kind tail
--   way   '<route>|<site>' that it went          kind  the event's type; tail its inner JSON
-- RETURNS: now, next (now where lanes are due that waited for one of those transactions, else 0), then a letter for each
--   row, in one text:
--   o  ok                                        s     settle decides
-- EVENTS: the rows' kinds

local now, consumer = clock(ARGV[1]), ARGV[2]
local letters = {}
for nth = 1, (#ARGV - HEAD) / EACH do letters[nth] = 's' end
local obstacles
ask_there(K.holds, K.collapse, K.notes, K.expiry, K.throttled, K.pauses, K.bodies, K.parked)
if not has(K.holds) and not has(K.collapse) then obstacles = obstacles_in(K.pauses) end
if obstacles and has(K.throttled) and redis.call('ZCOUNT', K.throttled, '-inf', text(now)) > 0 then obstacles = nil end
if not obstacles then return {text(now), '0', table.concat(letters)} end

-- Whether one more 250 says nothing new of that route and that site.
local calm = {}
local function is_calm(way)
  local route = route_of(way)
  if calm[route] == nil then calm[route] = not obstacles[route] and goes_on(route, consumer, now) end
  calm[way] = calm[route] and not obstacles[way]
  return calm[way]
end

ask_holds(consumer, 1)
local expanded = said_of_all('ZMSCORE', K.bodies, 1) -- they let go of what shares their body, too
local ended, gone, totals, children = {}, {}, {}, {} -- entries; stream → ids; kind → how many; parent → how many
local is_ended = {}
local at_once = {}
for place in ARGV[3]:gmatch('%d+') do at_once[tonumber(place)] = true end
local nth = 0
for at = HEAD + 1, #ARGV, EACH do
  local entry, way = ARGV[at], ARGV[at + 2]
  local _, id, stream = split(entry)
  nth = nth + 1
  local is_plain = calm[way]
  if is_plain == nil then is_plain = is_calm(way) end
  if is_plain and not expanded[entry] and not is_ended[entry] and owns(stream, id, consumer, ARGV[at + 1]) then
    local kind, tail = ARGV[at + 4], ARGV[at + 5]
    local parent = parent_in(tail)
    if parent then children[parent] = (children[parent] or 0) + 1 end
    listed(gone, stream, id)
    totals[kind] = (totals[kind] or 0) + 1
    event(kind, ARGV[at + 3], entry, entry .. '.' .. ARGV[at + 1], now, tail)
    ended[#ended + 1] = entry
    is_ended[entry] = true
    letters[nth] = 'o'
    if at_once[nth] then slot_left(way, consumer, entry) end
  end
end
for stream, ids in pairs(gone) do
  redis.call('XACK', stream, GROUP, unpack(ids))
  redis.call('XDEL', stream, unpack(ids))
end
for kind, many in pairs(totals) do count('total:' .. kind:match('[^.]*$'), many) end
for parent, many in pairs(children) do let_body(parent, many) end
if #ended > 0 and has(K.notes) then redis.call('HDEL', K.notes, unpack(ended)) end
if #ended > 0 and has(K.expiry) then redis.call('ZREM', K.expiry, unpack(ended)) end
return {text(now), keep_slots(now) and text(now) or '0', table.concat(letters)}

-- hear: a webhook's next page of events: of those that it was given and did not take, else of new ones. What went before
-- it had it is counted: of what it was given, and of what it never read.
-- needs: base
-- KEYS: {streamq}: absent events meta stream webhooks
-- ARGV: name many start to after
--   name    the webhook's                            many    events at most; 0: only its place is made, or moved
--   start   where its group begins that is new: '$' or '0'; one that was lost begins at '0'
--   to      an id: what it reads next is behind that; '' where it is
--   after   of those that it was given: behind that id
-- RETURNS: rows as XREADGROUP has them, those that are gone without fields; how many of what was given are gone; how many
--   it never read, -1 where that cannot be told
-- EVENTS: none

local LISTENER = 'listener' -- one process at a time has the role, so what is pending is its own
local name, many, group = ARGV[1], tonumber(ARGV[2]), 'webhook:' .. ARGV[1]
redis.call('DEL', K.absent)

local function place()
  local groups = redis.pcall('XINFO', 'GROUPS', K.events)
  for _, row in ipairs(groups.err and {} or groups) do
    local found = info(row)
    if found['name'] == group then return found['last-delivered-id'] end
  end
  return nil
end

local known = redis.call('HGET', K.webhooks, name .. ':read')
local at, moved = place(), false
if not at then
  redis.call('XGROUP', 'CREATE', K.events, group, known and '0' or ARGV[3], 'MKSTREAM')
  at, moved = place(), true
end

-- `added` came with Redis 7: so many were ever there. `out`: so many went, all of them the oldest (but for what was erased).
local stream = info(redis.call('XINFO', 'STREAM', K.events))
local first = stream['first-entry'] and stream['first-entry'][1]
local added = stream['entries-added']
local out = added and added - stream['length']

if ARGV[4] ~= '' then
  at, moved = ARGV[4], true
  if first and before(at, first) then at = '0-0' end
  redis.call('XGROUP', 'SETID', K.events, group, at)
end

-- How many were ever there up to an id; nil where that cannot be told.
local function rank(id)
  if not added then return nil end
  if not first or before(id, first) then return out end
  return not before(id, stream['last-generated-id']) and added or nil
end

-- The next look goes on from there.
local function note(id, number)
  known = id .. ' ' .. (number and digits(number) or '')
  redis.call('HSET', K.webhooks, name .. ':read', known)
end

if moved then note(at, rank(at)) end
if many == 0 then return {{}, 0, 0} end

local function read(from)
  local asked = {'GROUP', group, LISTENER, 'COUNT', many, 'STREAMS', K.events, from}
  local reply = redis.call('XREADGROUP', unpack(asked))
  return reply and reply[1][2] or {}
end

local rows = read(ARGV[5])
if #rows > 0 then
  local gone = 0
  for _, row in ipairs(rows) do
    if not row[2] then gone = gone + redis.call('XACK', K.events, group, row[1]) end
  end
  if gone > 0 then redis.call('HINCRBY', K.webhooks, name .. ':gone', gone) end
  return {rows, gone, 0}
end

rows = read('>')
if #rows == 0 then return {rows, 0, 0} end
local from, number = (known or ''):match('^(%S+) (%d*)$')
number = from == at and tonumber(number) or nil -- else somebody moved it
local lost = 0
if before(at, first) then
  if number then
    lost = math.max(0, out - number)
    number = math.max(out, number)
  elseif at ~= '0-0' then -- there it wanted what there was
    lost, number = -1, out
  end
end
if lost > 0 then redis.call('HINCRBY', K.webhooks, name .. ':gone', lost) end
if lost < 0 then redis.call('HINCRBY', K.webhooks, name .. ':gone_some', 1) end
local last = rows[#rows][1]
note(last, rank(last) or number and number + #rows)
return {rows, 0, lost}

-- base: what every script stands on; `K` (key names), `HEAD`, `EACH` come from the loader.
-- Names that mean the same in every header:
--   now       µs, '' for the server's time           window    ms, how long a producer's id is known
--   consumer  who calls                              entry     '<p><ms>-<seq>'
--   token     of the lease                           lane      '<route>|<site>', '' where it does not matter; with
--             several ways, in their order: '<route>><route>|<site>'; of a tenant: '<route>|<site>/<tenant>'
--   route     its name                               routes    comma list: those that the worker knows, '-' before
--             one that it does not use now; '' for any
--   id        the producer's id, or the entry        kind      an event's type
--   tail      inner JSON of an event

local GROUP = 'streamq'

-- The rows behind the head: `for kind, entry in each() do`. The first field of a row is never nil.
local function each()
  local at = HEAD + 1 - EACH
  return function()
    at = at + EACH
    if at <= #ARGV then return unpack(ARGV, at, at + EACH - 1) end
  end
end

-- Numbers of µs lose digits through `..` and tostring.
local function text(number) return string.format('%.0f', number) end

-- The same of a whole one below 2^53, for a fifth of what that costs.
local function digits(number) return string.format('%d', number) end

local settings = redis.call('HMGET', K.meta, 'priorities', 'events_kept', 'ids')
local NAMES = {} -- digit + 1 → priority; the digit's order is the order of urgency
local STREAMS = {} -- digit + 1 → its key
for name in string.gmatch(settings[1] or '', '[^,]+') do
  NAMES[#NAMES + 1] = name
  STREAMS[#STREAMS + 1] = K.stream(name)
end
local EVENTS_KEPT = settings[2] or '100000'

local byte, sub = string.byte, string.sub -- a method of a string is looked for in two tables, each time

-- '11732-0' → 1, '1732-0', the stream's key
local function split(entry)
  local p = byte(entry) - 48
  local stream = STREAMS[p + 1]
  if not stream then error('no priority has the digit of entry ' .. entry) end -- text: 6.2 can't raise a table
  return p, sub(entry, 2), stream
end

local function time_of(id) return tonumber(id:match('^%d+')) end

-- The part of a lane's name that all its tenants share: what waits for one slot. Mails without a tenant are in the lane
-- of that name.
local function road_of(lane) return lane:match('^[^/]*') end

-- Whether a key exists, asked once and where it matters: most that may hang on a mail hang on none.
local there = {}
local function has(key)
  if there[key] == nil then there[key] = redis.call('EXISTS', key) == 1 end
  return there[key]
end

-- The same of several that most often are not there: one question.
local function ask_there(...)
  if redis.call('EXISTS', ...) > 0 then return end
  for _, key in ipairs({...}) do there[key] = false end
end

local function has_now(key) there[key] = true end

-- Its time to live, where that is longer than what it has. (PEXPIRE GT came with Redis 7.)
local function outlast(key, ms)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, text(ms)) end
end

-- Compares ids as streams do. Numbers above 2^53 would lose digits, so: by length, then by text.
local DASH = byte('-')
local function id_parts(id)
  if byte(id, 14) == DASH and byte(id) ~= 48 then return sub(id, 1, 13), sub(id, 15) end -- any id of our time
  local ms, seq = id:match('^0*(%d+)-0*(%d+)$')
  return ms, seq
end
local function before(a, b)
  if byte(a, 14) == DASH and byte(b, 14) == DASH then -- any two ids of our time
    if #a == #b or sub(a, 1, 13) ~= sub(b, 1, 13) then return a < b end
    return #a < #b
  end
  local am, as = id_parts(a)
  local bm, bs = id_parts(b)
  if #am ~= #bm then return #am < #bm end
  if am ~= bm then return am < bm end
  if #as ~= #bs then return #as < #bs end
  return as < bs
end

-- Now, in µs. (adds: the script makes mails: one of those that a full memory stops.) The largest time seen wins, so that a failover to a slower clock turns no time back; a clock
-- that was minutes ahead is believed to have been wrong.
local function clock(given, adds)
  if not adds then redis.call('DEL', K.absent) end -- a first write that maxmemory lets pass (DESIGN 4)
  local now
  if given ~= '' then
    now = tonumber(given)
  else
    local t = redis.call('TIME')
    now = t[1] * 1000000 + t[2]
  end
  local last = tonumber(redis.call('SET', K.clock, digits(now), 'PX', 60000, 'GET') or '0')
  if last > now and last - now < 600000000 then
    redis.call('SET', K.clock, text(last), 'PX', 60000)
    return last
  end
  return now
end

-- What lies behind an id, up to `last`. Redis takes `(` and the greatest id that there is for an error; an XADD can
-- give that id.
local GREATEST = '18446744073709551615-18446744073709551615'
local function behind(stream, id, last, many)
  if id == GREATEST then return {} end
  return redis.call('XRANGE', stream, id == '' and '-' or '(' .. id, last, 'COUNT', many)
end

-- A script that takes a batch gathers what it can write once: `gather` at its start, `flush` at its end. The
-- others write at once.
local gathering = nil
local function gather() gathering = {counts = {}, left = {}, gone = {}, deleted = {}, bodies = {}} end

local function listed(lists, key, value)
  local list = lists[key]
  if list then
    list[#list + 1] = value
  else
    lists[key] = {value}
  end
end

local function count(field, by)
  if not gathering then return redis.call('HINCRBY', K.counts, field, by) end
  gathering.counts[field] = (gathering.counts[field] or 0) + by
end

local function delete(stream, id)
  if not gathering then return redis.call('XDEL', stream, id) end
  listed(gathering.gone, stream, id)
  gathering.deleted[stream .. id] = true
end

-- Children of an expanded mail have ended, so many; with the last of them goes the body that they shared.
local function let_body(parent, many)
  if gathering then
    gathering.bodies[parent] = (gathering.bodies[parent] or 0) + many
  elseif redis.call('HINCRBY', K.body(parent), 'left', 0 - many) <= 0 then -- 0 - 0 is 0, and -0 no integer
    redis.call('UNLINK', K.body(parent))
    redis.call('ZREM', K.bodies, parent)
  end
end

local function flush()
  for stream, ids in pairs(gathering.left) do redis.call('XACK', stream, GROUP, unpack(ids)) end
  for stream, ids in pairs(gathering.gone) do redis.call('XDEL', stream, unpack(ids)) end
  for field, by in pairs(gathering.counts) do
    if by ~= 0 then redis.call('HINCRBY', K.counts, field, by) end
  end
  local bodies = gathering.bodies
  gathering = nil
  for parent, many in pairs(bodies) do let_body(parent, many) end
end

-- XINFO's replies are lists of names and values.
local function info(list)
  local map = {}
  for at = 1, #list, 2 do map[list[at]] = list[at + 1] end
  return map
end

-- The group's last-delivered id, or nil where there is no group.
local function delivered(stream)
  if redis.call('EXISTS', stream) == 0 then return nil end
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local found = info(group)
    if found['name'] == GROUP then return found['last-delivered-id'] end
  end
  return nil
end

local function exists(stream, id)
  if gathering and gathering.deleted[stream .. id] then return false end
  return #redis.call('XRANGE', stream, id, id) > 0
end

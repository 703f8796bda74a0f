-- anew: a stream whose last id lies ahead of the clock (an XADD may name any) is made anew: the same entries under the
--   same ids, the same leases, the same place of the group; only its last id is that of its last entry. Servers since
--   Redis 7 set no stream's last id back (XSETID: "smaller than current max_deleted_entry_id"). Other groups go.
-- needs: base
-- KEYS: {streamq}: absent anew clock meta stream
-- ARGV: now verb p
--   verb    look, or make      p       digit of a priority
-- RETURNS: state, the stream's last id, its entries ahead (100 at most)
--   sound   nothing is ahead             ahead   entries are: they have to go first (or verb was look)
--   large   more than one script should copy, or an entry that none can            orphan   a lease without its entry: repair
--   made    done
-- EVENTS: none

local SLACK_MS = 600000 -- as `clock` believes a clock
local MOST_ENTRIES, MOST_BYTES, MOST_FIELDS, PAGE = 20000, 67108864, 7000, 100
local now = clock(ARGV[1])
local verb, p = ARGV[2], ARGV[3]
local stream = K.stream(NAMES[tonumber(p) + 1])
if redis.call('EXISTS', stream) == 0 then return {'sound', '0-0', 0} end

local last = info(redis.call('XINFO', 'STREAM', stream))['last-generated-id']
local latest_ms = math.floor(now / 1000) + SLACK_MS
if time_of(last) <= latest_ms then return {'sound', last, 0} end
local ahead = #redis.call('XRANGE', stream, text(latest_ms), '+', 'COUNT', PAGE)
if ahead > 0 or verb ~= 'make' then return {'ahead', last, ahead} end
if redis.call('XLEN', stream) > MOST_ENTRIES or (redis.call('MEMORY', 'USAGE', stream) or 0) > MOST_BYTES then
  return {'large', last, 0}
end

local function give_up(why)
  redis.call('DEL', K.anew)
  return {why, last, 0}
end

redis.call('DEL', K.anew)
local newest = '0-0'
while true do
  local rows = behind(stream, newest == '0-0' and '' or newest, '+', PAGE)
  for _, row in ipairs(rows) do
    if #row[2] > MOST_FIELDS then return give_up('large') end
    redis.call('XADD', K.anew, row[1], unpack(row[2]))
    newest = row[1]
  end
  if #rows < PAGE then break end
end

local reached = delivered(stream) or '0-0'
redis.call('XGROUP', 'CREATE', K.anew, GROUP, before(newest, reached) and newest or reached, 'MKSTREAM')
local from = '-'
while true do
  local leases = redis.call('XPENDING', stream, GROUP, from, '+', PAGE)
  for _, lease in ipairs(leases) do
    local id, consumer, idle, token = lease[1], lease[2], lease[3], lease[4]
    if not exists(K.anew, id) then return give_up('orphan') end
    redis.call('XCLAIM', K.anew, GROUP, consumer, '0', id, 'IDLE', idle, 'RETRYCOUNT', token, 'FORCE', 'JUSTID')
    from = '(' .. id
  end
  if #leases < PAGE then break end
end
redis.call('RENAME', K.anew, stream)

-- What was admitted lies at or below the last entry.
local field = 'admitted:' .. p
if before(newest, redis.call('HGET', K.meta, field) or '0-0') then redis.call('HSET', K.meta, field, newest) end
return {'made', last, 0}

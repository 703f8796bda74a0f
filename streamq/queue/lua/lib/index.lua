-- index: where a mail stands that is neither waiting nor leased: schedule, parked, held; and the counts of them.
-- ROADS    `due` names roads: the lanes of one (ways, site), one a tenant. Those of several tenants that have mails of a
--          priority there take turns: `turns:<priority>:<road>`, lane → its turn. `shared` names the roads of which there
--          are such turns, so that where no mail has a tenant nothing is looked up.
-- needs: base


local NEIGHBOURS = 16 -- of a burst share a bucket, and one command
local BUCKETS = 16384 -- lane hashes stay listpacks up to some eight million parked mails

local ZEROS = {
  [0] = '', '0', '00', '000', '0000', '00000', '000000', '0000000', '00000000', '000000000', '0000000000',
  '00000000000', '000000000000', '0000000000000', '00000000000000', '000000000000000', '0000000000000000',
  '00000000000000000', '000000000000000000', '0000000000000000000', '00000000000000000000',
}

-- head: what stands before it
local function padded(head, id)
  local ms, seq = id_parts(id)
  return head .. (ZEROS[13 - #ms] or '') .. ms .. '-' .. ZEROS[20 - #seq] .. seq
end

local function unpadded(member) -- '…|1001732-00…0' → '11732-0'
  local p, ms, seq = member:match('|(%d)0*(%d+)%-0*(%d+)$')
  return p .. ms .. '-' .. seq
end

local function lane_in(member) return member:match('^(.*)|') end

local function bucket_base(ms) return tonumber(ms:sub(-9)) * 31 end

local function bucket_at(base, seq)
  local number = tonumber(#seq > 9 and sub(seq, -9) or seq)
  return (base + (number - number % NEIGHBOURS) / NEIGHBOURS) % BUCKETS
end

local function bucket(id)
  local ms, seq = id_parts(id)
  return bucket_at(bucket_base(ms), seq)
end

local function lane_of(entry, id) return redis.call('HGET', K.lane(bucket(id)), entry) end

-- The parked members of a lane, one priority (nil: all), oldest first.
local function lane_range(lane, p, many)
  local first, last = lane .. '|', lane .. '}'
  if p then first, last = lane .. '|' .. p, lane .. '|' .. string.char(49 + p) end
  return redis.call('ZRANGEBYLEX', K.parked, '[' .. first, '(' .. last, 'LIMIT', 0, many)
end

-- It has the last turn of its road; one that it has already stays.
local joined = {} -- digit → lane → true
local function join(lane, p)
  joined[p] = joined[p] or {}
  if joined[p][lane] then return end
  joined[p][lane] = true
  local road = road_of(lane)
  local turns = K.turns(NAMES[p + 1], road)
  local last = redis.call('ZRANGE', turns, -1, -1, 'WITHSCORES')[2]
  redis.call('ZADD', turns, 'NX', text((last or 0) + 1), lane)
  redis.call('SADD', K.shared, p .. road)
  has_now(K.shared)
end

-- µs at which the lane may be visited; an earlier visit that is set already stays.
local visits = {} -- digit → lane → the visit that this script has set
local function park(entry, lane, next, p, id)
  if not p then p, id = split(entry) end
  has_now(K.parked)
  redis.call('ZADD', K.parked, 0, lane .. '|' .. padded(p, id))
  redis.call('HSET', K.lane(bucket(id)), entry, lane)
  local road = road_of(lane)
  if road ~= lane then join(lane, p) end
  visits[p] = visits[p] or {}
  if not visits[p][road] or next < visits[p][road] then
    redis.call('ZADD', K.due(NAMES[p + 1]), 'LT', text(next), road)
    visits[p][road] = next
  end
  count('parked:' .. p, 1)
end

-- Those of a page, of one lane without a tenant, of one priority, in one command where that goes; rows: flat, id and its parts.
local function park_all(lane, rows, next, p)
  has_now(K.parked)
  -- Numbers become text through printf, each time they are joined: a sixth of what this loop cost.
  local digit, command, last = text(p), {'ZADD', K.parked}, 2
  local head = lane .. '|' .. digit
  local neighbours, filled, at = {}, 0, nil
  local ms_now, head_now, base -- of a burst's time
  for row = 1, #rows, 3 do
    local ms, seq = rows[row + 1], rows[row + 2]
    if ms ~= ms_now then ms_now, head_now, base = ms, head .. (ZEROS[13 - #ms] or '') .. ms .. '-', bucket_base(ms) end
    command[last + 1] = '0'
    command[last + 2] = head_now .. ZEROS[20 - #seq] .. seq
    last = last + 2
    local here = bucket_at(base, seq)
    if here ~= at then
      if at then redis.call(unpack(neighbours)) end
      at, neighbours, filled = here, {'HSET', K.lane(here)}, 2
    end
    neighbours[filled + 1] = digit .. rows[row]
    neighbours[filled + 2] = lane
    filled = filled + 2
  end
  redis.call(unpack(neighbours))
  redis.call(unpack(command))
  redis.call('ZADD', K.due(NAMES[p + 1]), 'LT', text(next), lane)
  count('parked:' .. p, #rows / 3)
end

-- Who waits on a road already: the best priority, when it is visited next, and all of them. Asked once a lane; those of a whole
-- batch in one command a priority. (A road is in `due` of a priority while one of its lanes holds mails of it.)
local queues = {}
local function ask_queues(roads)
  for _, road in ipairs(roads) do queues[road] = {visit = 0, waits = {}} end
  if not has(K.parked) or #roads == 0 then return end
  for at, name in ipairs(NAMES) do
    for nth, visit in ipairs(redis.call('ZMSCORE', K.due(name), unpack(roads))) do
      local queue = queues[roads[nth]]
      if visit then queue.waits[at - 1] = true end
      if visit and not queue.urgency then queue.urgency, queue.visit = at - 1, tonumber(visit) end
    end
  end
end

local function queue_of(road)
  if not queues[road] then ask_queues({road}) end
  return queues[road]
end

-- The last mail of a priority has left the lane: nobody visits it, nor, if it was the last lane, its road.
local function emptied(lane, p)
  local road, name = road_of(lane), NAMES[p + 1]
  if has(K.shared) then
    local turns = K.turns(name, road)
    redis.call('ZREM', turns, lane)
    if joined[p] then joined[p][lane] = nil end
    local left = redis.call('ZRANGE', turns, 0, 1)
    if #left > 1 or (left[1] and left[1] ~= road) then return end
    redis.call('DEL', turns)
    redis.call('SREM', K.shared, p .. road)
    if joined[p] then joined[p][road] = nil end
    if road ~= lane and #lane_range(road, p, 1) > 0 then return end
  end
  redis.call('ZREM', K.due(name), road)
  if visits[p] then visits[p][road] = nil end
end

-- Of a road's lanes the one whose turn it is, since it was visited longest ago; and whether there are several.
local function lane_in_turn(road, p)
  if not has(K.shared) then return road, false end
  local turns = K.turns(NAMES[p + 1], road)
  local first = redis.call('ZRANGE', turns, 0, 0)[1]
  if not first then return road, false end
  if not (joined[p] and joined[p][road]) and #lane_range(road, p, 1) > 0 then join(road, p) end
  return first, true
end

-- It has had its turn. (One that is empty by now has none any more.)
local function turn_over(lane, p)
  if not has(K.shared) then return end
  local turns = K.turns(NAMES[p + 1], road_of(lane))
  local last = redis.call('ZRANGE', turns, -1, -1, 'WITHSCORES')[2]
  if last then redis.call('ZADD', turns, 'XX', text(last + 1), lane) end
end

-- The lane it stood in, or nil.
local function unpark(entry)
  local p, id = split(entry)
  local lane = lane_of(entry, id)
  if not lane or redis.call('ZREM', K.parked, lane .. '|' .. padded(p, id)) == 0 then return nil end
  redis.call('HDEL', K.lane(bucket(id)), entry)
  if #lane_range(lane, p, 1) == 0 then emptied(lane, p) end
  count('parked:' .. p, -1)
  return lane
end

local function schedule(entry, ms)
  has_now(K.schedule)
  redis.call('ZADD', K.schedule, text(ms), entry)
  count('scheduled:' .. entry:sub(1, 1), 1)
end

local function unschedule(entry)
  if redis.call('ZREM', K.schedule, entry) == 0 then return false end
  count('scheduled:' .. entry:sub(1, 1), -1)
  return true
end

local function hold(entry)
  has_now(K.held)
  local _, id = split(entry)
  redis.call('ZADD', K.held, text(time_of(id)), entry)
  count('held:' .. entry:sub(1, 1), 1)
end

local function unhold(entry)
  if redis.call('ZREM', K.held, entry) == 0 then return false end
  count('held:' .. entry:sub(1, 1), -1)
  return true
end

-- 'scheduled', 'parked', 'held' or nil
local function place(entry)
  local _, id = split(entry)
  if has(K.schedule) and redis.call('ZSCORE', K.schedule, entry) then return 'scheduled' end
  if has(K.parked) and lane_of(entry, id) then return 'parked' end
  if has(K.held) and redis.call('ZSCORE', K.held, entry) then return 'held' end
  return nil
end

-- Admission looks into the indexes for ids up to the highest that it has seen (admit). Whoever gives a token, or a
-- place in an index, to a mail that was never admitted raises that: its stream may be read again.
local function admitted_to(p, id)
  if before(redis.call('HGET', K.meta, 'admitted:' .. p) or '0-0', id) then
    redis.call('HSET', K.meta, 'admitted:' .. p, id)
  end
end

-- Out of whichever index it stands in.
local function displace(entry, from)
  if from == 'scheduled' then return unschedule(entry) end
  if from == 'parked' then return unpark(entry) ~= nil end
  if from == 'held' then return unhold(entry) end
  return false
end

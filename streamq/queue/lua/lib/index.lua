-- index: where a mail stands that is neither waiting nor leased: schedule, parked, held; and the counts of them.
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

-- next: µs at which the lane may be visited; an earlier visit that is set already stays.
local visits = {} -- digit → lane → the visit that this script has set
local function park(entry, lane, next, p, id)
  if not p then p, id = split(entry) end
  has_now(K.parked)
  redis.call('ZADD', K.parked, 0, lane .. '|' .. padded(p, id))
  redis.call('HSET', K.lane(bucket(id)), entry, lane)
  visits[p] = visits[p] or {}
  if not visits[p][lane] or next < visits[p][lane] then
    redis.call('ZADD', K.due(NAMES[p + 1]), 'LT', text(next), lane)
    visits[p][lane] = next
  end
  count('parked:' .. p, 1)
end

-- At most 100 of one lane and priority, in one command where that goes; rows: flat, id and its parts.
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

-- Who waits in a lane already: the best priority, and when it is visited next. Asked once a lane; those of a whole
-- batch in one command a priority. (A lane is in `due` of a priority while it holds mails of it.)
local queues = {}
local function ask_queues(lanes)
  for _, lane in ipairs(lanes) do queues[lane] = {visit = 0} end
  if not has(K.parked) or #lanes == 0 then return end
  for at, name in ipairs(NAMES) do
    for nth, visit in ipairs(redis.call('ZMSCORE', K.due(name), unpack(lanes))) do
      local queue = queues[lanes[nth]]
      if visit and not queue.urgency then queue.urgency, queue.visit = at - 1, tonumber(visit) end
    end
  end
end

local function queue_of(lane)
  if not queues[lane] then ask_queues({lane}) end
  return queues[lane]
end

-- The lane it stood in, or nil.
local function unpark(entry)
  local p, id = split(entry)
  local lane = lane_of(entry, id)
  if not lane or redis.call('ZREM', K.parked, lane .. '|' .. padded(p, id)) == 0 then return nil end
  redis.call('HDEL', K.lane(bucket(id)), entry)
  if #lane_range(lane, p, 1) == 0 then
    redis.call('ZREM', K.due(NAMES[p + 1]), lane)
    if visits[p] then visits[p][lane] = nil end
  end
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

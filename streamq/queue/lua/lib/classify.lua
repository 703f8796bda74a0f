-- classify: where an entry of the spool stands, by PEL, index and last-delivered id.
-- needs: base lease index

local function in_lane(entry, lane)
  local p, id = split(entry)
  local road, name = road_of(lane), NAMES[p + 1]
  return redis.call('ZSCORE', K.parked, lane .. '|' .. padded(p, id)) and redis.call('ZSCORE', K.due(name), road) and
    (road == lane or redis.call('ZSCORE', K.turns(name, road), lane))
end

-- waiting leased parked scheduled held, or what is wrong: lost (in none), twice (in two indexes), both (in an
-- index and leased), lane (its lane's parts do not agree)
local function classify(entry, stream, id, last)
  local lane = lane_of(entry, id)
  local scheduled = redis.call('ZSCORE', K.schedule, entry)
  local held = redis.call('ZSCORE', K.held, entry)
  local indexes = (lane and 1 or 0) + (scheduled and 1 or 0) + (held and 1 or 0)
  if indexes > 1 then return 'twice' end
  local leased, token = holder(stream, id)
  if indexes == 0 then
    if leased then return 'leased' end
    return before(last, id) and 'waiting' or 'lost'
  end
  -- Read once more, after the group was made again: admission acks it, it counts in its index alone.
  if leased and token >= FIRST_TOKEN then return 'both' end
  if lane then return in_lane(entry, lane) and 'parked' or 'lane' end
  return scheduled and 'scheduled' or 'held'
end

-- A parked member that its entry does not lead to.
local function is_stray(member)
  local entry = unpadded(member)
  return lane_of(entry, entry:sub(2)) ~= lane_in(member)
end

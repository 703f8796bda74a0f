-- bounds: how near the queue is to its bounds; says so once, before one is reached, when it is, and when that is over. While
--   mails, memory or ids are at theirs, `full` stands there for producers. Of events that are too many bytes the oldest
--   go; of ids none does before its time, since its mail could be sent twice. How many mails it takes stays behind, for
--   producers to look by themselves while no worker does.
-- needs: base seen event letter
-- KEYS: {streamq}: absent bounds clock counts events full meta seen stream
-- ARGV: now mails share dead events ids window
--   mails   live mails, at most          share   of maxmemory, in thousandths
--   dead    bytes of letters, at most    events  bytes of them, at most
--   ids     bytes of them, at most       window  ms, for which one is known at least
-- RETURNS: how many changed their level
-- EVENTS: queue.filling queue.full queue.eased

local now = clock(ARGV[1])
local EVENTS_MOST = tonumber(ARGV[5])
-- Shares of a bound: from where on a warning is worth it, and below which one that was given is over.
local FILLING, EASED, TAKES = 0.8, 0.7, 0.95
local NONE, FILLS, FULL = 'none', 'filling', 'full'

local function level(share, was)
  if share >= 1 or (was == FULL and share >= TAKES) then return FULL end
  if share >= FILLING or (was ~= NONE and share >= EASED) then return FILLS end
  return NONE
end

local memory = redis.call('INFO', 'memory')
local mails = 0
for _, stream in ipairs(STREAMS) do mails = mails + redis.call('XLEN', stream) end
local found = {
  {'queue', mails, tonumber(ARGV[2])},
  {'memory', tonumber(memory:match('used_memory:(%d+)')), math.floor(tonumber(memory:match('maxmemory:(%d+)')) * tonumber(ARGV[3]) / 1000)},
  {'ids', ids_bytes(now, tonumber(ARGV[7])), tonumber(ARGV[6])},
  {'dead', all_bytes(), tonumber(ARGV[4])},
}

local before_ = cjson.decode(redis.call('HGET', K.meta, 'bounds') or '{}')
local after, changed, stops = {}, 0, nil
for _, bound in ipairs(found) do
  local name, used, most = bound[1], bound[2], bound[3]
  local was = before_[name] and before_[name].level or NONE
  local is = most > 0 and level(used / most, was) or NONE
  if is ~= NONE then after[name] = {level = is, used = used, most = most} end
  if is == FULL and name ~= 'dead' then stops = stops or name .. ' ' .. text(used) .. ' ' .. text(most) end
  if is ~= was then
    changed = changed + 1
    local kind = is == FULL and 'queue.full' or is == FILLS and was == NONE and 'queue.filling' or 'queue.eased'
    local said = {bound = name, level = is, was = was, used = used, most = most}
    event(kind, name, '', 'bound-' .. name .. '-' .. text(now), now, json(said):sub(2, -2))
  end
end
if next(after) then
  redis.call('HSET', K.meta, 'bounds', json(after))
elseif next(before_) then
  redis.call('HDEL', K.meta, 'bounds')
end
redis.call('SET', K.bounds, ARGV[2])
if stops then
  redis.call('SET', K.full, stops)
else
  redis.call('DEL', K.full)
end

local bytes = redis.call('MEMORY', 'USAGE', K.events) or 0
if bytes > EVENTS_MOST then
  redis.call('XTRIM', K.events, 'MAXLEN', '~', text(math.floor(redis.call('XLEN', K.events) * EVENTS_MOST / bytes)))
end
return changed

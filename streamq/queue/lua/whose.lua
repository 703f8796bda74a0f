-- whose: who delivers a queue: workers, or one `streamq up`, whose mails go to a sink. A mail that was meant for people
--   must not end there, so `take` believes that mails are an `up`'s only where all that ever came, came to one.
-- needs: base
-- KEYS: {streamq}: absent bell clock meta stream whose
-- ARGV: now verb owner ttl force consumer alive
--   verb   take, renew, leave: an `up`; join: a worker      owner  name of the `up`; '' for a worker that delivers to people
--   ttl    ms of the lease                                  force  1: take what others left, or came to nobody
--   alive  ms, in which a worker reads
-- RETURNS: status, who stands in the way ('' nobody), how many of them
--   mine     it is, from now on            held  another `up` has it          workers  there are live ones
--   strange  mails came that may not be an `up`'s: `workers` had the queue, or ('') nobody
--   lost     to another one, or to workers
-- EVENTS: none

local WORKERS = 'workers'
local now, verb, owner, consumer, alive_ms = clock(ARGV[1]), ARGV[2], ARGV[3], ARGV[6], tonumber(ARGV[7])
local by = redis.call('HGET', K.whose, 'by') or ''
local till = tonumber(redis.call('HGET', K.whose, 'until') or '0')
local is_held = by ~= '' and by ~= WORKERS and till > now

local function last_of(stream)
  if redis.call('EXISTS', stream) == 0 then return '0-0' end
  return info(redis.call('XINFO', 'STREAM', stream))['last-generated-id']
end

-- Ids tell also of mails that are gone: a queue that is empty for a moment is not one that nobody uses.
local function all_seen()
  for at, stream in ipairs(STREAMS) do
    local last = last_of(stream)
    local seen = redis.call('HGET', K.whose, 'seen:' .. (at - 1)) or '0-0'
    if last ~= seen and time_of(last) * 1000 >= till then return false end
  end
  return true
end

local function look()
  for at, stream in ipairs(STREAMS) do redis.call('HSET', K.whose, 'seen:' .. (at - 1), last_of(stream)) end
end

local function alive()
  local first, found, many = '', {}, 0
  local streams = {K.bell, unpack(STREAMS)}
  for _, stream in ipairs(streams) do
    for _, row in ipairs(delivered(stream) and redis.call('XINFO', 'CONSUMERS', stream, GROUP) or {}) do
      local one = info(row)
      if one['idle'] < alive_ms and not found[one['name']] then
        found[one['name']] = true
        many = many + 1
        if first == '' or one['name'] < first then first = one['name'] end
      end
    end
  end
  return first, many
end

local function have(ends) redis.call('HSET', K.whose, 'by', owner, 'until', text(ends)) end

local verb_of = {}

function verb_of.take()
  if is_held and by ~= owner then return {'held', by, 1} end
  local who, many = alive()
  if many > 0 then return {'workers', who, many} end
  if ARGV[5] ~= '1' and (by == WORKERS or not all_seen()) then return {'strange', by == WORKERS and by or '', 0} end
  have(now + ARGV[4] * 1000)
  look()
  return {'mine', '', 0}
end

-- Not there: the server was emptied while this `up` had it, when no worker could come.
function verb_of.renew()
  if by ~= owner and by ~= '' then return {'lost', by, 1} end
  have(now + ARGV[4] * 1000)
  return {'mine', '', 0}
end

function verb_of.leave()
  if by ~= owner then return {'lost', by, 1} end
  have(now)
  look()
  return {'mine', '', 0}
end

-- A worker is seen from here on, so that no `up` comes between its look and its first read.
function verb_of.join()
  if owner ~= '' then
    if by ~= owner and by ~= '' then return {'lost', by, 1} end
  elseif is_held then
    return {'held', by, 1}
  else
    redis.call('HSET', K.whose, 'by', WORKERS)
  end
  redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', 1, 'STREAMS', K.bell, '0')
  return {'mine', by, 0}
end

return verb_of[verb]()

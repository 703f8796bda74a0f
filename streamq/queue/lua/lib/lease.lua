-- lease: an entry in the group's PEL whose delivery count is the token that admission gave.
-- needs: base

-- Tokens keep clear of the small counts that XREADGROUP itself writes.
local function new_token()
  local token = redis.call('INCR', K.lease)
  if token < 16 then token = redis.call('INCRBY', K.lease, 16) end
  return token
end

-- consumer, token; nil where nobody holds it
local function holder(stream, id)
  local found = redis.call('XPENDING', stream, GROUP, id, id, 1)[1]
  if found then return found[2], found[4] end
  return nil
end

local function owns(stream, id, consumer, token)
  local who, count = holder(stream, id)
  return who == consumer and count == tonumber(token)
end

-- An entry that this consumer holds already gets its token; idle time starts again.
local function stamp(stream, id, consumer, token)
  redis.call('XCLAIM', stream, GROUP, consumer, '0', id, 'RETRYCOUNT', token, 'JUSTID')
end

-- An entry that stands in no index any more, in this same script, becomes a lease. FORCE on an id that nobody
-- read yet, or that another holds, would steal it: hence only after the index's ZREM returned 1.
local function take(stream, id, consumer, token)
  redis.call('XCLAIM', stream, GROUP, consumer, '0', id, 'RETRYCOUNT', token, 'FORCE', 'JUSTID')
end

local function leave(stream, id) return redis.call('XACK', stream, GROUP, id) end

-- A group that was made again re-reads its stream. Until it has passed the id that was last then, a mail taken
-- back from an index would be read a second time.
local rereading = {}
local function is_rereading(p, stream)
  if rereading[p] == nil then
    local mark = redis.call('HGET', K.meta, 'reread:' .. p)
    rereading[p] = false
    if mark then
      local last = delivered(stream)
      rereading[p] = not last or #redis.call('XRANGE', stream, '(' .. last, mark, 'COUNT', 1) > 0
      if not rereading[p] then redis.call('HDEL', K.meta, 'reread:' .. p) end
    end
  end
  return rereading[p]
end

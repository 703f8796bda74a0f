-- site: an operator closes a site, or opens it again: on one route (`main|example.net`) or on all of them
-- (`*|example.net`). Its pause stands among those of routes, in `pauses` (lib/route), its end in `ends`.
-- needs: base route

local WAYS_MOST = 1000 -- of lanes that differ in their ways; of more the rest comes at its own time (LOOK)

-- Its lanes are due now. Found by their ways, each with one step over all that is parked for these: what waits for other
-- sites costs nothing.
local function wake_site(target, now)
  local route, site = target:match('^([^|]*)|(.*)$')
  local from = '-'
  for _ = 1, WAYS_MOST do
    local member = redis.call('ZRANGEBYLEX', K.parked, from, '+', 'LIMIT', 0, 1)[1]
    if not member then return end
    local ways = member:match('^[^|]*')
    from = '(' .. ways .. '}'
    if route == '*' or ('>' .. ways .. '>'):find('>' .. route .. '>', 1, true) then
      for _, name in ipairs(NAMES) do redis.call('ZADD', K.due(name), 'XX', text(now), ways .. '|' .. site) end
    end
  end
end

-- till: µs, FOREVER for no end
local function close_site(target, now, till, reason)
  local asked = {till = text(till), reason = reason, since = text(now)}
  redis.call('HSET', K.pauses, target, cjson.encode({asked = asked}))
  if till < FOREVER then
    redis.call('ZADD', K.ends, text(till), target)
  else
    redis.call('ZREM', K.ends, target)
  end
  wake_site(target, now) -- what has another way goes there
end

-- µs since which it was closed; nil where it was open.
local function open_site(target, now)
  local found = redis.call('HGET', K.pauses, target)
  redis.call('ZREM', K.ends, target)
  if not found then return nil end
  redis.call('HDEL', K.pauses, target)
  wake_site(target, now)
  return tonumber(cjson.decode(found).asked.since)
end

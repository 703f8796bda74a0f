-- event: one entry per outcome, three fields, the third a JSON object.
-- needs: base

-- Two inner parts of a JSON object as one; either may be ''.
local function with(tail, more) return tail .. (tail ~= '' and more ~= '' and ',' or '') .. more end

local at_of, at_text -- a batch's events are of one time

-- tail: the inner part of a JSON object that the caller knows, without braces; may be ''. The first of a script trims: those
-- behind it are few.
local function event(kind, id, entry, event_id, now, tail)
  local is_first = not at_of
  if at_of ~= now then at_of, at_text = now, '{"at":' .. text(math.floor(now / 1000)) .. ',"event_id":"' end
  local of = entry ~= '' and '","entry":"' .. entry .. '","priority":"' .. NAMES[byte(entry) - 47] or ''
  local data = at_text .. event_id .. of .. (tail ~= '' and '",' or '"') .. tail .. '}'
  if is_first then
    redis.call('XADD', K.events, 'MAXLEN', '~', EVENTS_KEPT, '*', 'type', kind, 'id', id, 'data', data)
  else
    redis.call('XADD', K.events, '*', 'type', kind, 'id', id, 'data', data)
  end
end

local function json(value) return cjson.encode(value) end

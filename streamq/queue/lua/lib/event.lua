-- event: one entry per outcome, three fields, the third a JSON object.
-- needs: base

-- Two inner parts of a JSON object as one; either may be ''.
local function with(tail, more) return tail .. (tail ~= '' and more ~= '' and ',' or '') .. more end

-- tail: the inner part of a JSON object that the caller knows, without braces; may be ''.
local function event(kind, id, entry, event_id, now, tail)
  local data = '{"at":' .. text(math.floor(now / 1000)) .. ',"event_id":"' .. event_id .. '"'
  if entry ~= '' then
    data = data .. ',"entry":"' .. entry .. '","priority":"' .. NAMES[tonumber(entry:sub(1, 1)) + 1] .. '"'
  end
  if tail ~= '' then data = data .. ',' .. tail end
  redis.call('XADD', K.events, 'MAXLEN', '~', EVENTS_KEPT, '*', 'type', kind, 'id', id, 'data', data .. '}')
end

local function json(value) return cjson.encode(value) end

-- lease: an entry in the group's PEL whose delivery count is the token that admission gave.
-- needs: base

-- Tokens keep clear of the small counts that XREADGROUP itself writes.
local FIRST_TOKEN = 16
local function new_token()
  local token = redis.call('INCR', K.lease)
  if token < FIRST_TOKEN then token = redis.call('INCRBY', K.lease, FIRST_TOKEN) end
  return token
end

-- consumer, token; nil where nobody holds it
local function holder(stream, id)
  local found = redis.call('XPENDING', stream, GROUP, id, id, 1)[1]
  if found then return found[2], found[4] end
  return nil
end

-- What this consumer holds of a batch's rows, one command a stream instead of one a row. `column`: where the
-- entry stands in a row. It holds other leases between those ids, too: beyond so many the rows are asked singly.
local OTHERS = 300
local holds_now -- stream → id → token
local asked_whole = {} -- streams
local function ask_holds(consumer, column)
  holds_now = {}
  local first, last, many = {}, {}, {}
  for at = HEAD + column, #ARGV, EACH do
    local _, id, stream = split(ARGV[at])
    local latest = last[stream]
    if not latest then
      first[stream], last[stream], many[stream] = id, id, 1
    else
      if before(latest, id) then -- most come in their order
        last[stream] = id
      elseif before(id, first[stream]) then
        first[stream] = id
      end
      many[stream] = many[stream] + 1
    end
  end
  for stream, rows in pairs(many) do
    local most = rows > 1 and rows + OTHERS or 1
    local found = redis.call('XPENDING', stream, GROUP, first[stream], last[stream], most, consumer)
    local held = {}
    for nth = 1, #found do
      local row = found[nth]
      held[row[1]] = row[4]
    end
    holds_now[stream] = held
    asked_whole[stream] = #found < most or rows == 1
  end
end

-- The token under which this consumer holds it; nil where it does not.
local function held_token(stream, id, consumer)
  local token = holds_now and holds_now[stream] and holds_now[stream][id]
  if token ~= nil then return token or nil end
  if asked_whole[stream] then return nil end
  local who, found = holder(stream, id)
  return who == consumer and found or nil
end

local token_text, token_number -- a batch has few
local function owns(stream, id, consumer, token)
  if token ~= token_text then token_text, token_number = token, tonumber(token) end
  return held_token(stream, id, consumer) == token_number
end

-- An entry that this consumer holds already gets its token; idle time starts again. False where somebody
-- deleted the entry: newer servers than 6.2 then drop it from the PEL, too.
local function stamp(stream, id, consumer, token)
  return #redis.call('XCLAIM', stream, GROUP, consumer, '0', id, 'RETRYCOUNT', token, 'JUSTID') > 0
end

-- The same for many; returns those whose entry somebody deleted.
local function stamp_all(stream, ids, consumer, token)
  local command, last = {'XCLAIM', stream, GROUP, consumer, '0'}, 5 + #ids
  for nth = 1, #ids do command[5 + nth] = ids[nth] end
  command[last + 1] = 'RETRYCOUNT'
  command[last + 2] = token
  command[last + 3] = 'JUSTID'
  local found = redis.call(unpack(command))
  if #found == #ids then return {} end
  local stamped, gone = {}, {}
  for _, id in ipairs(found) do stamped[id] = true end
  for _, id in ipairs(ids) do
    if not stamped[id] then gone[#gone + 1] = id end
  end
  return gone
end

-- An entry that stands in no index any more, in this same script, becomes a lease. FORCE on an id that nobody
-- read yet, or that another holds, would steal it: hence only after the index's ZREM returned 1. False as above.
local function take(stream, id, consumer, token)
  return #redis.call('XCLAIM', stream, GROUP, consumer, '0', id, 'RETRYCOUNT', token, 'FORCE', 'JUSTID') > 0
end

-- Waiting mails become this consumer's as a read would make them, in the script that passes them.
local function read_by(stream, ids, consumer)
  local command = {'XCLAIM', stream, GROUP, consumer, '0'}
  for _, id in ipairs(ids) do command[#command + 1] = id end
  for _, word in ipairs({'RETRYCOUNT', '1', 'FORCE', 'JUSTID'}) do command[#command + 1] = word end
  redis.call(unpack(command))
end

-- Nothing up to this id waits any more. (How many the group has read, since Redis 7, is not said: with entries
-- deleted in between nobody knows; the server estimates it again from the next read on.)
local function pass(stream, id) redis.call('XGROUP', 'SETID', stream, GROUP, id) end

local function leave(stream, id)
  if holds_now and holds_now[stream] then holds_now[stream][id] = false end
  if not gathering then return redis.call('XACK', stream, GROUP, id) end
  listed(gathering.left, stream, id)
end

-- A group that was made again re-reads its stream. Until it has passed the id that was last then, a mail taken
-- back from an index would be read a second time.
local rereading = {}
local function is_rereading(p, stream)
  if rereading[p] == nil then
    local mark = redis.call('HGET', K.meta, 'reread:' .. p)
    rereading[p] = false
    if mark then
      local last = delivered(stream)
      rereading[p] = not last or #behind(stream, last, mark, 1) > 0
      if not rereading[p] then redis.call('HDEL', K.meta, 'reread:' .. p) end
    end
  end
  return rereading[p]
end

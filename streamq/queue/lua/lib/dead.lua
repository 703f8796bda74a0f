-- dead: ends of mails. Every mail leaves its stream through one of these.
-- needs: base lease notes seen event letter child

-- Classes of mails that no mending on our side could send, so that their bodies would be kept for nothing. What was
-- refused for its text, its sender or our reputation may be requeued; so may what was malformed, with other fields.
local BODILESS = {bad_address = true, loop = true, too_large = true}
local HEAD_MOST = 16384 -- bytes of a raw mail's head that stay
local MOST_FIELDS = 1000 -- `unpack` fails near 8,000 values

local function fields_of(stream, id)
  local found = redis.call('XRANGE', stream, id, id)[1]
  return found and found[2] or nil
end

-- Out of PEL and stream; what hangs on it goes too. The index is the caller's. parent: whose body it shares, or nil.
local function remove(entry, stream, id, parent)
  leave(stream, id)
  delete(stream, id)
  forget(entry)
  if parent then let_body(parent, 1) end
  let_rest(entry)
end

-- Fields by name; of a child also the ids that it has by its parent, and which that is.
local function known_of(fields, entry)
  local map = info(fields)
  map.parent = map['@of'] and parent_of(entry, map)
  if map.parent then
    local shared = redis.call('HMGET', K.body(map.parent), '=id', '=tenant', '=traceparent')
    map['id'] = map['id'] or shared[1] and shared[1] .. '#' .. (map['@n'] or '')
    map['tenant'], map['traceparent'] = shared[2] or nil, shared[3] or nil
  end
  return map
end

-- A mail that ends without having been sent gives its id free.
local function disown(map, entry, now, window)
  if (map['id'] or '') ~= '' then unsee(digest_of(map['tenant'], map['id']), entry, now, window) end
end

-- A child's fields with those that it shares, as several.py has it: JSON objects of both become one.
local SHARED_MOST = 65536 -- bytes of a shared field that a dead letter takes; a script may write a hundred of them
local JOINED = {vars = true, metadata = true}
local function members(value) return value:match('^%s*{(.*)}%s*$') end -- of a JSON object, as text
local function whole(fields, map)
  local key, out = K.body(map.parent), {}
  local own = info(fields)
  for _, field in ipairs(redis.call('HKEYS', key)) do
    local name = field:match('^=(.*)$')
    if name and redis.call('HSTRLEN', key, field) > SHARED_MOST then
      out.dropped = out.dropped or name:sub(1, 2) ~= 'x_' -- a long To no less: a requeue would send another mail
    elseif name then
      local value = redis.call('HGET', key, field)
      if name == 'id' then value = map['id'] end
      if not own[name] then
        out[#out + 1] = name
        out[#out + 1] = value
      elseif JOINED[name] then
        local ours, theirs = members(own[name]), members(value)
        if ours and theirs then
          own[name] = '{' .. theirs .. ((ours:find('%S') and theirs:find('%S')) and ',' or '') .. ours .. '}'
        end
      end
    end
  end
  for at = 1, #fields, 2 do
    if fields[at]:sub(1, 1) ~= '@' then
      out[#out + 1] = fields[at]
      out[#out + 1] = own[fields[at]]
    end
  end
  return out
end

-- What a child's message is stamped by (Message-ID, Date, boundaries), as spool.py has it.
local function stamp_of(map)
  return map.parent .. (redis.call('HEXISTS', K.body(map.parent), 'personal') == 1 and '#' .. map['@n'] or '')
end

-- The fields at the beginning of a raw mail, as far as they are some.
local function head_of(raw)
  local first, at = raw:sub(1, HEAD_MOST):gsub('\r\n?', '\n'), 1
  while true do
    local last = first:find('\n', at, true)
    if not last or not (first:find('^[!-9;-~]+[ \t]*:', at) or first:find('^[ \t]', at)) then break end
    at = last + 1
  end
  return first:sub(1, at - 1)
end

-- The letter: the mail's fields, and `own`, what it says of itself. bare: without a body, whatever the class.
local function letter_of(fields, own, class, bare)
  local letter = {}
  local sensitive = is_secret(fields)
  local function add(name, value) letter[#letter + 1] = name; letter[#letter + 1] = value end
  if #fields > MOST_FIELDS then
    add('packed', (sensitive or bare) and '' or cjson.encode(fields))
  else
    local dropped = fields.dropped
    for at = 1, #fields, 2 do
      local name, value = fields[at], fields[at + 1]
      if not (BODY[name] and (sensitive or bare or BODILESS[class])) then
        add(name, value)
      elseif value ~= '' then
        dropped = true
        if name == 'raw' and not sensitive then add('dead_head', head_of(value)) end
      end
    end
    if dropped then add('dead_body', 'dropped') end
  end
  for at = 1, #own, 2 do add(own[at], own[at + 1]) end
  return letter
end

-- Room for a letter of so many bytes: the oldest go until it and the rest are as few as workers have said (`dead_bytes`
-- in `meta`; where none has, there is room). Each call may drop as much as a call of trim, and for each letter that it
-- writes some others and its own bytes again: so a stream of dead letters ends at the bound, and no script takes longer
-- than about twice what writing takes. False where that was not enough.
local EACH_DROPS = 4 -- letters, for one that is written
local room = nil -- what is left of this call's: {most, letters, bytes}
local function make_room(size)
  if not room then
    local said = redis.call('HGET', K.meta, 'dead_bytes')
    room = {most = said and tonumber(said) or math.huge, letters = GONE_MOST, bytes = READ_MOST}
  end
  if room.most == math.huge then return true end
  if size > room.most then return false end -- it alone is too much: none goes in vain
  room.letters, room.bytes = room.letters + EACH_DROPS, room.bytes + size
  local bytes = all_bytes()
  while bytes + size > room.most and room.letters > 0 and room.bytes > 0 do
    local row = oldest_letter()
    if not row then return true end
    local gone = discard(row[1], row[2])
    room.letters, room.bytes, bytes = room.letters - 1, room.bytes - gone, bytes - gone
  end
  return bytes + size <= room.most
end

-- The mail's fields and why it died, in the dead letters: so many bytes were read for it, of a child with those that it
-- shares; false where its entry is gone. Where the letters are too many bytes for it, it stands there without its body:
-- a bound that one burst breaks is none.
-- why: {reason, class, reply, attempts}
local function bury(entry, stream, id, why, now, window)
  local fields = fields_of(stream, id)
  if not fields then -- somebody deleted it
    vanish(entry, stream, id)
    return false
  end
  local map = known_of(fields, entry)
  if map.parent then fields = whole(fields, map) end
  local own = {}
  local function add(name, value) own[#own + 1] = name; own[#own + 1] = value end
  add('dead_reason', why.reason)
  add('dead_class', why.class)
  add('dead_at', text(math.floor(now / 1000)))
  add('dead_entry', entry)
  if map.parent then add('dead_stamp', stamp_of(map)) end
  local notes = notes_of(entry)
  local made = has(K.bodies) and redis.call('HGET', K.body(entry), 'made') or notes.made
  if made then add('dead_made', made) end -- of its recipients so many have theirs
  add('attempts', why.attempts or notes.attempts or 0)
  local reply = type(why.reply) == 'string' and why.reply or notes.reply -- JSON's null is no string, and true
  add('last_reply', type(reply) == 'string' and reply or '')
  local letter = letter_of(fields, own, why.class)
  local size = letter_bytes(letter)
  local bytes = size
  if not make_room(size) then
    letter = letter_of(fields, own, why.class, true)
    bytes = letter_bytes(letter)
    make_room(bytes)
  end
  disown(map, entry, now, window)
  redis.call('XADD', K.dead, '*', unpack(letter))
  count('dead_bytes', bytes)
  remove(entry, stream, id, map.parent)
  count('dead', 1)
  count('class:' .. why.class, 1)
  return size
end

-- A 250 that came after its lease was lost: that mail was sent, whatever was to become of it now. True where it
-- ended so.
local function sent_late(entry, stream, id, producer, event_id, now)
  local sent = notes_of(entry).sent
  if not sent then return false end
  remove(entry, stream, id, parent_in(sent))
  count('total:relayed', 1)
  event('email.relayed', producer, entry, event_id, now, sent)
  return true
end

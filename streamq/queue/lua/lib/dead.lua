-- dead: ends of mails. Every mail leaves its stream through one of these.
-- needs: base lease index notes seen event

local BODY = {text = true, html = true, raw = true, attachments = true, vars = true, recipients = true}
local MOST_FIELDS = 1000 -- `unpack` fails near 8,000 values

local function fields_of(stream, id)
  local found = redis.call('XRANGE', stream, id, id)[1]
  return found and found[2] or nil
end

-- Out of PEL and stream; what hangs on it goes too. The index is the caller's.
local function remove(entry, stream, id)
  leave(stream, id)
  redis.call('XDEL', stream, id)
  forget(entry)
end

-- The mail's fields and why it died, in the dead letters; false where its entry is gone.
-- why: {reason, class, reply, attempts}
local function bury(entry, stream, id, why, now, window)
  local fields = fields_of(stream, id)
  if not fields then -- somebody deleted it
    remove(entry, stream, id)
    count('vanished', 1)
    return false
  end
  local map = info(fields)
  local letter = {}
  local sensitive = map['sensitive'] == '1'
  local function add(name, value) letter[#letter + 1] = name; letter[#letter + 1] = value end
  if #fields > MOST_FIELDS then
    add('packed', sensitive and '' or cjson.encode(fields))
  else
    for at = 1, #fields, 2 do
      if not (sensitive and BODY[fields[at]]) then add(fields[at], fields[at + 1]) end
    end
  end
  add('dead_reason', why.reason)
  add('dead_class', why.class)
  add('dead_at', text(math.floor(now / 1000)))
  add('dead_entry', entry)
  add('attempts', why.attempts or notes_of(entry).attempts or 0)
  add('last_reply', why.reply or notes_of(entry).reply or '')
  if (map['id'] or '') ~= '' then unsee(digest_of(map['tenant'], map['id']), entry, now, window) end
  redis.call('XADD', K.dead, '*', unpack(letter))
  remove(entry, stream, id)
  count('dead', 1)
  count('class:' .. why.class, 1)
  return true
end

-- The event's tail from the entry alone, for ends that no worker sees.
local function tail_from(fields)
  local map = info(fields)
  local known = {}
  for _, name in ipairs({'tenant', 'traceparent'}) do
    if (map[name] or '') ~= '' then known[#known + 1] = json(name) .. ':' .. json(map[name]) end
  end
  return table.concat(known, ','), map['id'] or ''
end

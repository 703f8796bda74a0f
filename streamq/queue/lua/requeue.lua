-- requeue: dead letters become waiting mails again.
-- needs: base lease event letter
-- KEYS: {streamq}: absent clock counts dead events lease meta stream
-- ARGV: now
-- EACH: letter changes
--   letter   id in the dead letters' stream
--   changes  '' or JSON [field, value, …]: what its mail shall say instead; '' takes a field away
-- RETURNS: per row: the new entry, 'missing', 'packed' (too many fields: malformed for good, or no letter of ours),
--   'partly' (some of its recipients have their mail, it has no id by which they are known, and the changes do not say
--   who the others are), 'sensitive' or 'bodiless' (its body was not kept, and the changes bring none)
-- EVENTS: email.requeued

local now = clock(ARGV[1])
local token = new_token()
local OWN = {dead_reason = true, dead_class = true, dead_at = true, dead_entry = true, dead_body = true,
  dead_head = true, dead_made = true, attempts = true,
  last_reply = true}
local BRINGS = {text = true, html = true, raw = true, template = true}
local out = {}

-- What changes: field → value, their names in order, whether there is a body among them.
local function read_changes(changes)
  local flat = changes ~= '' and cjson.decode(changes) or {}
  local names, body = {}, false
  for at = 1, #flat, 2 do
    names[#names + 1] = flat[at]
    body = body or (BRINGS[flat[at]] and flat[at + 1] ~= '')
  end
  return info(flat), names, body
end

-- The fields of the new mail, flat.
local function changed(flat, new, names)
  local mail, there = {}, {}
  local function add(name, value)
    if value == '' and new[name] then return end
    mail[#mail + 1] = name
    mail[#mail + 1] = value
  end
  for at = 1, #flat, 2 do
    local name = flat[at]
    local again = there[name] and new[name] -- given twice, and what it shall say instead once
    there[name] = true
    if not (OWN[name] or again) then add(name, new[name] or flat[at + 1]) end
  end
  for _, name in ipairs(names) do
    if not there[name] then add(name, new[name]) end
  end
  return mail
end

-- The field that says who gets it.
local function whose(fields)
  for _, name in ipairs({'recipients', 'envelope_to'}) do
    if (fields[name] or '') ~= '' then return name end
  end
  return fields['raw'] and 'envelope_to' or 'to'
end

for letter, changes in each() do
  local found = letter_at(letter)
  local fields = found and info(found[2])
  local new, names, body = read_changes(changes)
  if not found then
    out[#out + 1] = 'missing'
  elseif fields['packed'] or not fields['dead_entry'] then
    out[#out + 1] = 'packed'
  elseif fields['dead_made'] and (new['id'] or fields['id'] or '') == '' and not new[whose(fields)] then
    out[#out + 1] = 'partly'
  elseif is_sensitive(fields) and not body then
    out[#out + 1] = 'sensitive'
  elseif fields['dead_body'] and not body then
    out[#out + 1] = 'bodiless'
  else
    local old = fields['dead_entry']
    local p, _, stream = split(old)
    local entry = p .. redis.call('XADD', stream, '*', unpack(changed(found[2], new, names)))
    discard(letter, found[2])
    count('total:requeued', 1)
    local id = new['id'] or fields['id'] or ''
    local tail = '"of":"' .. old .. '"' .. (#names > 0 and ',"changed":' .. json(names) or '')
    event('email.requeued', id ~= '' and id or entry, entry, entry .. '.' .. token, now, tail)
    out[#out + 1] = entry
  end
end
return out

-- requeue: dead letters become waiting mails again; or what would become of them.
-- needs: base lease child notes event letter
-- KEYS: {streamq}: absent clock counts dead events lease meta notes stream
-- ARGV: now dry
--   dry  1: nothing is done; '' in the place of an entry
-- EACH: letter changes
--   letter   id in the dead letters' stream
--   changes  '' or JSON [field, value, …]: what its mail shall say instead; '' takes a field away. Who gets it stands
--     in `envelope_to` where there is one: a new `to` is put there, too
-- RETURNS: per row: the new entry, 'missing', 'packed' (too many fields: malformed for good, or no letter of ours),
--   'partly' (some of its recipients have their mail, and the changes, or what was not kept, leave open who the others
--   are), 'envelope' (the changes name recipients where none are looked for), 'sensitive' or 'bodiless' (its body was
--   not kept, and the changes bring none)
-- EVENTS: email.requeued

local now, dry = clock(ARGV[1]), ARGV[2] == '1'
local token = new_token()
local OWN = {dead_reason = true, dead_class = true, dead_at = true, dead_entry = true, dead_body = true,
  dead_head = true, dead_made = true, dead_stamp = true, attempts = true,
  last_reply = true}
local BRINGS = {'text', 'html', 'raw', 'template'}
local out = {}

local function is_set(fields, name) return (fields[name] or '') ~= '' end

-- What changes: field → value, and their names in order.
local function read_changes(changes)
  local flat = changes ~= '' and cjson.decode(changes) or {}
  local names = {}
  for at = 1, #flat, 2 do names[#names + 1] = flat[at] end
  return info(flat), names
end

-- Whether there is a body among them; of a template that was kept its values are one.
local function brings(new, fields)
  for _, name in ipairs(BRINGS) do
    if is_set(new, name) then return true end
  end
  return is_set(new, 'vars') and is_set(fields, 'template') and new['template'] ~= ''
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

-- Whether nobody knows who the others are of a mail that some have: the expansion goes on by their number, behind those
-- that have theirs (expand), so that it must find the list that it was made from. (Ids of a new generation for a new list
-- were the alternative that lost: who stands in both lists would get the mail twice.)
local function is_open(fields, new)
  local found = false
  for _, name in ipairs({'to', 'cc', 'bcc', 'envelope_to', 'recipients'}) do
    if new[name] then return true end
    found = found or is_set(fields, name)
  end
  if is_set(fields, 'envelope_to') or is_set(fields, 'recipients') then return false end
  return new['raw'] ~= nil or not (found or is_set(fields, 'raw'))
end

-- Whether the changes name somebody whom no mail would reach, or take away what says who gets it: without its
-- `envelope_to` a copy would go to all in To and Cc, who have theirs.
local function is_misnamed(fields, new)
  if is_set(new, 'recipients') or is_set(new, 'envelope_to') then return false end
  local enveloped = is_set(fields, 'envelope_to')
  local others = is_set(new, 'cc') or is_set(new, 'bcc')
  if enveloped and (new['envelope_to'] == '' or others) then return true end
  local raw = new['raw'] or fields['raw'] or ''
  return raw ~= '' and (others or is_set(new, 'to'))
end

local function refusal(fields, new, made)
  if fields['packed'] or not (fields['dead_entry'] or ''):find('^%d%d+%-%d+$')
    or not STREAMS[fields['dead_entry']:byte(1) - 47] then return 'packed' end
  if made > 0 and is_open(fields, new) then return 'partly' end
  if is_misnamed(fields, new) then return 'envelope' end
  local body = brings(new, fields)
  if is_sensitive(fields) and not body then return 'sensitive' end
  return fields['dead_body'] and not body and 'bodiless'
end

for letter, changes in each() do
  local found = letter_at(letter)
  local fields = found and info(found[2])
  local new, names = read_changes(changes)
  -- Anybody may have written that number.
  local made = found and tonumber((fields['dead_made'] or ''):sub(1, 8):match('^%d+$')) or 0
  local refused = not found and 'missing' or refusal(fields, new, made)
  if refused or dry then
    out[#out + 1] = refused or ''
  else
    if is_set(fields, 'envelope_to') and is_set(new, 'to') and not new['envelope_to'] then
      new['envelope_to'] = new['to']
      names[#names + 1] = 'envelope_to'
    end
    local old = fields['dead_entry']
    local p, _, stream = split(old)
    local entry = p .. redis.call('XADD', stream, '*', unpack(changed(found[2], new, names)))
    if made > 0 then note(entry, {made = made}) end
    discard(letter, found[2])
    count('total:requeued', 1)
    local id = new['id'] or fields['id'] or ''
    local tail = '"of":"' .. old .. '"' .. (#names > 0 and ',"changed":' .. json(names) or '')
    local parent = (fields['dead_stamp'] or ''):match('^%d+%-%d+') -- a child, and a mail of its own from now on
    if parent then tail = tail .. ',"parent":"' .. parent .. '"' end
    event('email.requeued', id ~= '' and id or entry, entry, entry .. '.' .. token, now, tail)
    out[#out + 1] = entry
  end
end
return out

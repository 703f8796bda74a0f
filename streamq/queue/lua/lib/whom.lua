-- whom: what an end that no worker sees says of its mail: whose it was, and to whom, as the mail layer says it.
-- needs: base event child dead sha256

local KNOWN = {} -- mail/fields.py, BUILT; another field may say otherwise whom a mail is for
local KNOWN_NAMES = 'attachments auto_text bcc cc collapse_key collapse_seconds delay dsn_envid dsn_notify dsn_orcpt ' ..
  'dsn_ret envelope_from envelope_to expires_at from headers html id metadata on_ambiguous raw recipients reply_to ' ..
  'require_tls route send_at sender sensitive subject tags template tenant text to traceparent ttl v vars'
local TELLS = {to = true, cc = true, bcc = true, envelope_to = true, recipients = true, raw = true, v = true}

-- UTF-8 (RFC 3629), strictly: of each lead byte its own continuations are taken out, and none may be left.
local function is_utf8(text)
  if not text:find('[\128-\255]') then return true end
  for _, form in ipairs({'[\194-\223][\128-\191]', '\224[\160-\191][\128-\191]', '[\225-\236\238\239][\128-\191][\128-\191]',
    '\237[\128-\159][\128-\191]', '\240[\144-\191][\128-\191][\128-\191]', '[\241-\243][\128-\191][\128-\191][\128-\191]',
    '\244[\128-\143][\128-\191][\128-\191]'}) do
    text = text:gsub(form, ' ')
  end
  return not text:find('[\128-\255]')
end

-- The address, and its domain in lower case, of a field that holds nothing but one in its usual forms: `a@b`,
-- `Name <a@b>`, `"Name" <a@b>`, or a JSON array of one of these. nil for what only the mail layer can tell: a name that
-- is no A-labels yet, a literal, a quoted local part, comments, groups. Of those an event says nothing, sooner than
-- what is wrong.
local function only_address(value)
  if #value > 1000 or value:find('%c') or not is_utf8(value) then return nil end
  value = value:match('^%["([^"\\]*)"%]$') or value
  local name, spec = value:match('^([^<>]*)<([^<>]*)>$')
  if name and not name:find('^ *"[^"\\]*" *$') and name:find('[()@,:;"\\%[%]]') then return nil end
  spec = name and spec or value
  local loc, domain = spec:match("^([A-Za-z0-9!#$%%&'*+/=?^_`{|}~.%-]+)@([A-Za-z0-9.%-]+)$")
  if not loc or #loc > 64 or #spec > 254 or ('.' .. loc .. '.'):find('..', 1, true) then return nil end
  for label in (domain .. '.'):gmatch('([^.]*)%.') do
    if #label > 63 or not label:find('^%w[%w%-]*$') or label:find('%-$') then return nil end
  end
  return spec, domain:lower()
end

-- The same of a mail's fields: its one recipient. As mail/sure.py has it; `map`: of lib/dead, `known_of`.
local function addressee(flat, map)
  if not KNOWN.to then
    for name in KNOWN_NAMES:gmatch('%S+') do KNOWN[name] = true end
  end
  local met = {}
  for at = 1, #flat, 2 do
    local name, value = flat[at], flat[at + 1]
    if TELLS[name] and met[name] then return nil end -- nobody can tell which of them was meant
    met[name] = value
    local is_kin = map.parent and (name == '@of' or name == '@n')
    if value ~= '' and not KNOWN[name] and name:sub(1, 2) ~= 'x_' and not is_kin then return nil end
  end
  local function has_field(name) return (met[name] or '') ~= '' end
  if has_field('recipients') or (has_field('v') and met.v ~= '1') then return nil end
  if has_field('envelope_to') then return only_address(met.envelope_to) end
  if has_field('raw') or has_field('cc') or has_field('bcc') then return nil end
  for _, name in ipairs(map.parent and {'=raw', '=cc'} or {}) do
    if redis.call('HEXISTS', K.body(map.parent), name) == 1 then return nil end
  end
  return only_address(met.to or '')
end

-- Whether an address may stand in the clear: workers say what `pii` is. Where none has, it is hidden: one that is hashed
-- though it need not be is found all the same.
local is_clear
local function may_show()
  if is_clear == nil then is_clear = redis.call('HGET', K.meta, 'pii') == 'full' end
  return is_clear
end

local HASH_COST = 400000 -- bytes that a script could read in the time that a block takes
local function members_of(rcpt, site)
  if not rcpt then return '', 0 end
  local cost = 0
  if not may_show() then
    if not bit then return '"site":"' .. site .. '"', 0 end -- fakeredis has none; every server does
    cost = HASH_COST * math.ceil((#rcpt + 9) / BLOCK)
    rcpt = 'sha256:' .. sha256_16(rcpt:lower())
  end
  return '"rcpt":' .. json(rcpt):gsub('\\/', '/') .. ',"site":"' .. site .. '"', cost
end

-- What another mail's tail says of the same recipient, `rcpt` and `site`, or ''.
local function whom_in(tail)
  local from = parent_in(tail) and (tail:find(',', 1, true) or 0) + 1 or 1
  return tail:match('^"rcpt":".-[^\\]","site":"[^"\\]*"', from) or ''
end

-- The event's tail and the producer's id from the entry alone, and what that has cost beside reading it, in bytes.
-- Nobody has checked these fields: what is too long is left out. to: of lib/whom, `whom_in`, where that is known.
local function tail_from(fields, entry, to)
  local map = known_of(fields, entry)
  local cost = 0
  if not to then to, cost = members_of(addressee(fields, map)) end
  local known = {map.parent and '"parent":"' .. map.parent .. '"'}
  if to ~= '' then known[#known + 1] = to end
  for _, name in ipairs({'tenant', 'traceparent'}) do
    local value = map[name] or ''
    if value ~= '' and #value <= 256 and not value:find('[^ -~]') then
      known[#known + 1] = json(name) .. ':' .. json(value)
    end
  end
  return table.concat(known, ','), (map['id'] or ''):sub(1, 256), cost
end

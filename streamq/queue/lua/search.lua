-- search: entries that have an id, or may be to an address, the newest first. A first look, which leaves nearly all
-- others out: who gets a mail for certain is what the mail layer reads. (To send all entries to who looks was the
-- alternative that lost: a million mails are gigabytes.)
-- needs: base
-- KEYS: {streamq}: dead meta stream
-- ARGV: p below many local domain id
--   p          digit of the priority, '' for the dead letters     below    id below which to begin, '' for the newest
--   many       entries to visit at most; no further one after so many BYTES
--   local      of the address, in lower case, '' for any: with '' for the domain, too, no address is looked for
--   domain     of the address, in A-labels, '' for any
--   id         the producer's id, of any tenant, '' for none
-- RETURNS: reached (id to go on below, '' at the stream's end), how many were visited, then of each that was found:
--   its id in the stream, its tenant, '1' where it has the id
-- EVENTS: none

local p, below, many, loc, domain, wanted = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
local BYTES, bytes = 200000, 0 -- of what is passed by: less than a ms
local MOST = 20 -- entries at once: how large the next ones are nobody knows
local stream = p == '' and K.dead or STREAMS[tonumber(p) + 1]
local by_address = loc ~= '' or domain ~= ''
local LISTS = {to = true, cc = true, bcc = true, envelope_to = true, recipients = true}
local FIELDS = {to = true, cc = true, bcc = true, envelope_to = true, recipients = true, raw = true, id = true,
  tenant = true}

-- Whether a text may hold the address. What is not ASCII may be any domain's other form.
local function may(value)
  value = value:lower()
  if loc ~= '' and not value:find(loc, 1, true) then return false end
  return domain == '' or value:find(domain, 1, true) ~= nil or value:find('[\128-\255]') ~= nil
end

local function may_be_to(map)
  if not by_address then return false end
  for name, value in pairs(map) do
    -- A backslash: JSON, or a quoted local part, that spells it in another way.
    if LISTS[name] and (may(value) or value:find('\\', 1, true)) then return true end
  end
  local raw = map['raw'] or ''
  if raw == '' or (map['envelope_to'] or '') ~= '' then return false end
  return may(raw:sub(1, raw:find('\n\r?\n') or #raw))
end

-- The fields that tell. All are counted.
local function telling(flat)
  local map = {}
  for at = 1, #flat, 2 do
    local value = flat[at + 1]
    bytes = bytes + #value
    if FIELDS[flat[at]] then map[flat[at]] = value end
  end
  return map
end

local out = {'', 0}
local visited, step = 0, 1
while true do
  local asked = math.min(step, many - visited)
  local found = redis.call('XREVRANGE', stream, below == '' and '+' or '(' .. below, '-', 'COUNT', asked)
  for _, row in ipairs(found) do
    local map = telling(row[2])
    local same = wanted ~= '' and map['id'] == wanted
    if same or may_be_to(map) then
      out[#out + 1] = row[1]
      out[#out + 1] = map['tenant'] or ''
      out[#out + 1] = same and '1' or ''
    end
    below = row[1]
  end
  visited = visited + #found
  if #found < asked or below == '0-0' then break end
  if visited >= many or bytes >= BYTES then
    out[1] = below
    break
  end
  step = math.min(MOST, 2 * step, math.max(1, math.floor((BYTES - bytes) * visited / math.max(1, bytes))))
end
out[2] = visited
return out

-- requeue: dead letters become waiting mails again.
-- needs: base lease event
-- KEYS: {streamq}: absent clock counts dead events lease meta stream
-- ARGV: now
-- EACH: letter
--   letter   id in the dead letters' stream
-- RETURNS: per row: the new entry, 'missing', 'packed' (too many fields: malformed for good), or 'sensitive' (its
--   body was not kept)
-- EVENTS: email.requeued

local now = clock(ARGV[1])
local token = new_token()
local OWN = {dead_reason = true, dead_class = true, dead_at = true, dead_entry = true, attempts = true, last_reply = true}
local out = {}

for letter in each() do
  local found = redis.call('XRANGE', K.dead, letter, letter)[1]
  local fields = found and info(found[2])
  if not found then
    out[#out + 1] = 'missing'
  elseif fields['packed'] then
    out[#out + 1] = 'packed'
  elseif fields['sensitive'] == '1' then
    out[#out + 1] = 'sensitive'
  else
    local mail = {}
    for at = 1, #found[2], 2 do
      if not OWN[found[2][at]] then
        mail[#mail + 1] = found[2][at]
        mail[#mail + 1] = found[2][at + 1]
      end
    end
    local old = fields['dead_entry']
    local p, _, stream = split(old)
    local entry = p .. redis.call('XADD', stream, '*', unpack(mail))
    redis.call('XDEL', K.dead, letter)
    count('total:requeued', 1)
    event('email.requeued', (fields['id'] or '') ~= '' and fields['id'] or entry, entry, entry .. '.' .. token, now,
      '"of":"' .. old .. '"')
    out[#out + 1] = entry
  end
end
return out

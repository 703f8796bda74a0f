-- adopt: held mails that waited for a version that knows their fields become this consumer's leases. (On the
-- schedule an older version could take them, and hold them again.)
-- needs: base lease index child notes
-- KEYS: {streamq}: absent bodies body collapse counts expiry held holds lease meta notes stream
-- ARGV: consumer
-- EACH: entry
-- RETURNS: token, then per lease: entry, notes (JSON or '')
-- EVENTS: none

local consumer = ARGV[1]
redis.call('DEL', K.absent)
local token = new_token()
local out = {}
for entry in each() do
  local p, id, stream = split(entry)
  if not is_rereading(p, stream) and unhold(entry) then
    if take(stream, id, consumer, token) then
      local notes = notes_of(entry)
      need(notes, -1)
      held_no_more(notes)
      notes.fields = nil
      note(entry, notes)
      out[#out + 1] = entry
      out[#out + 1] = cjson.encode(notes)
    else
      vanish(entry, stream, id)
    end
  end
end
return {token, unpack(out)}

-- mark: these mails' dots go out now. One field per connection, overwritten by its next mail: if their consumer
-- dies, what its dots name is ambiguous.
-- needs: base lease child notes
-- KEYS: {streamq}: absent dots meta notes stream
-- ARGV: consumer
-- EACH: connection entry token before
--   before   comma list of the connection's mails before this one whose 250 is not settled: still past their dots
--   connection  '<route>.<a number that this consumer gave it>'
-- RETURNS: per row: ok, lost (somebody else's lease), sent (a 250 came late: do not send it again)
-- EVENTS: none

local consumer = ARGV[1]
redis.call('DEL', K.absent)
local out, dots = {}, {}
ask_holds(consumer, 2)
for connection, entry, token, earlier in each() do
  local _, id, stream = split(entry)
  if not owns(stream, id, consumer, token) then
    out[#out + 1] = 'lost'
  elseif notes_of(entry).sent then
    out[#out + 1] = 'sent'
  else
    out[#out + 1] = 'ok'
    dots[#dots + 1] = consumer .. '/' .. connection
    dots[#dots + 1] = earlier ~= '' and earlier .. ',' .. entry or entry
  end
end
if #dots > 0 then redis.call('HSET', K.dots, unpack(dots)) end
return out

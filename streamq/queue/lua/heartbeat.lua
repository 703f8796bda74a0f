-- heartbeat: renews leases that are still this consumer's. (A bare XCLAIM would take them back from a new owner.)
-- needs: base lease child notes
-- KEYS: {streamq}: bodies body collapse counts expiry holds meta notes stream
-- ARGV: consumer
-- EACH: entry token
-- RETURNS: the entries that are lost, or whose entry somebody deleted
-- EVENTS: none

local consumer = ARGV[1]
local lost = {}
for entry, token in each() do
  local _, id, stream = split(entry)
  if not owns(stream, id, consumer, token) then
    lost[#lost + 1] = entry
  elseif not stamp(stream, id, consumer, token) then
    vanish(entry, stream, id)
    lost[#lost + 1] = entry
  end
end
return lost

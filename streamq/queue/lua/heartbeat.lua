-- heartbeat: renews leases that are still this consumer's. (A bare XCLAIM would take them back from a new owner.)
-- needs: base lease
-- ARGV: consumer
-- EACH: entry token
-- RETURNS: the entries that are lost
-- EVENTS: none

local consumer = ARGV[1]
local lost = {}
for entry, token in each() do
  local _, id, stream = split(entry)
  if owns(stream, id, consumer, token) then
    stamp(stream, id, consumer, token)
  else
    lost[#lost + 1] = entry
  end
end
return lost

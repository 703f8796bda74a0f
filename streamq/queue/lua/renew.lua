-- renew: a worker still has these mails, and the slots of them. A slot that it lost meanwhile, since it was silent for
-- longer than one lasts, is counted again, though there are too many then: its transaction is under way.
-- needs: base lease route slots
-- KEYS: {streamq}: absent clock meta slots stream
-- ARGV: now consumer
-- EACH: entry token target
--   target  '<route>|<site>' where it has its slot, as admit and release said it
-- RETURNS: how many count
-- EVENTS: none

local now, consumer = clock(ARGV[1]), ARGV[2]
local till = text(now + SLOT_LASTS)
local many, touched = 0, {}
ask_holds(consumer, 1)

for entry, token, target in each() do
  local _, id, stream = split(entry)
  local slot = consumer .. ' ' .. entry
  if owns(stream, id, consumer, token) then
    redis.call('ZADD', K.slots(target), till, slot)
    many = many + 1
    touched[target] = true
  elseif redis.call('ZSCORE', K.slots(target), slot) then -- another has the mail now, and this one's transaction goes on
    redis.call('ZADD', K.slots(target), till, slot)
    many = many + 1
  end
end
for target in pairs(touched) do redis.call('PEXPIRE', K.slots(target), SLOTS_LAST) end
return many

-- measure: how fast targets took mail from a worker of late. Told by those who hear that one has slowed: the pace begins
-- with what all of them brought there, and who met the refusal knows only its own part.
-- needs: base route pace throttle
-- KEYS: {streamq}: absent clock counts grants limit meta pauses stream throttled
-- ARGV: now consumer
-- EACH: target took least
--   target  '<route>' or '<route>|<site>'
--   took    mails a second, as settle has them of a refusal      least  and at least
-- RETURNS: how many targets have a pace
-- EVENTS: none

local now, consumer = clock(ARGV[1]), ARGV[2]
local many = 0
for target, took, least in each() do
  local state = pace_at(target)
  if state then
    throttle.add_share(state, now, {who = consumer, took = tonumber(took), least = tonumber(least)})
    pace.changed[target] = true
    many = many + 1
  end
end
keep_paces(now)
return many

-- leader: takes or renews the lease of a role.
-- needs: base
-- KEYS: {streamq}: absent leader meta stream
-- ARGV: role consumer ttl
--   role  its name      ttl  ms; 0 gives it back
-- RETURNS: 1 where this consumer has it
-- EVENTS: none

redis.call('DEL', K.absent)
local key, consumer, ttl = K.leader(ARGV[1]), ARGV[2], ARGV[3]
local who = redis.call('GET', key)
if who and who ~= consumer then return 0 end
if ttl == '0' then
  redis.call('DEL', key)
  return 0
end
redis.call('SET', key, consumer, 'PX', ttl)
return 1

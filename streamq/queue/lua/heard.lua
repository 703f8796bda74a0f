-- heard: what a webhook took of a page is done with, and counted; so is a round that failed, and the end of a run of them.
-- needs: base
-- KEYS: {streamq}: absent events meta stream webhooks
-- ARGV: name failed state
--   name   the webhook's             failed   1 where something of the round was not taken, 0 where all was
--   state  JSON: how it does
-- EACH: id
--   id     in the stream
-- RETURNS: how many are done with; rounds that failed in a row, this one with them, or that had until it
-- EVENTS: none

local name, ids = ARGV[1], {}
redis.call('DEL', K.absent)
for id in each() do ids[#ids + 1] = id end
local sent = #ids > 0 and redis.call('XACK', K.events, 'webhook:' .. name, unpack(ids)) or 0
if sent > 0 then redis.call('HINCRBY', K.webhooks, name .. ':sent', sent) end
redis.call('HSET', K.webhooks, name .. ':state', ARGV[3])
if ARGV[2] == '1' then return {sent, redis.call('HINCRBY', K.webhooks, name .. ':failures', 1)} end
local failures = redis.call('HGET', K.webhooks, name .. ':failures') or '0'
redis.call('HSET', K.webhooks, name .. ':failures', '0')
return {sent, tonumber(failures)}

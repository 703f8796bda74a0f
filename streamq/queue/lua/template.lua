-- template: a stored template gets a version, or goes. A version never changes: a mail that was handed over when it was
-- the newest is built from it at every attempt.
-- needs: base
-- KEYS: {streamq}: absent clock meta stream template templates
-- ARGV: now verb name content
--   verb   put, rm      name  the template's      content  put: JSON {subject, text, html}
-- RETURNS: put: its version (that of the newest one, where that is the same); rm: how many versions went
-- EVENTS: none

local verb, name, content = ARGV[2], ARGV[3], ARGV[4]
local now = clock(ARGV[1], verb == 'put')
local KEPT = 100 -- versions
local key = K.template(name)

-- Of one that was removed the number stays, below zero: no version is ever another one.
local newest = tonumber(redis.call('HGET', K.templates, name) or '0')

if verb == 'rm' then
  local many = redis.call('HLEN', key)
  redis.call('UNLINK', key)
  if newest > 0 then redis.call('HSET', K.templates, name, text(-newest)) end
  return many
end

if newest > 0 and redis.call('HGET', key, text(newest)):match('^%d+ (.*)$') == content then return newest end
newest = math.abs(newest) + 1
redis.call('HSET', key, text(newest), text(math.floor(now / 1000)) .. ' ' .. content)
redis.call('HDEL', key, text(newest - KEPT))
redis.call('HSET', K.templates, name, text(newest))
return newest

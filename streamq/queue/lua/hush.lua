-- hush: blanks what was said where it names somebody and stands as a reason: why a route or a site is closed, or slowed.
-- needs: base
-- KEYS: {streamq}: absent limit meta pauses stream throttled
-- ARGV: rank
--   rank   among what is slowed, to go on from; 0 at the start
-- EACH: form
--   form   how the address may stand there, in lower case
-- RETURNS: next rank (0 at the end), how many were blanked
-- EVENTS: none

local PAGE = 500
local rank = tonumber(ARGV[1])
redis.call('DEL', K.absent)

local function names_them(said)
  if type(said) ~= 'string' then return false end
  local plain = said:lower()
  for form in each() do
    if plain:find(form, 1, true) then return true end
  end
  return false
end

-- The JSON with '' for it. In its text: to write all of it anew would cost the times their last digits.
local function without(json, name, said)
  local from, to = json:find('"' .. name .. '":' .. cjson.encode(said), 1, true)
  return from and json:sub(1, from - 1) .. '"' .. name .. '":""' .. json:sub(to + 1) or json
end

local blanked = 0
local function hush(key, field, json)
  if not json then return end
  local known, made = cjson.decode(json), json
  if names_them(known.reply) then made = without(made, 'reply', known.reply) end
  local asked = known.asked
  if type(asked) == 'table' and names_them(asked.reason) then made = without(made, 'reason', asked.reason) end
  if made ~= json then
    redis.call('HSET', key, field, made)
    blanked = blanked + 1
  end
end

if rank == 0 then
  for field, json in pairs(info(redis.call('HGETALL', K.pauses))) do hush(K.pauses, field, json) end
end
local targets = redis.call('ZRANGE', K.throttled, rank, rank + PAGE - 1)
for _, target in ipairs(targets) do
  hush(K.limit(target), 'pace', redis.call('HGET', K.limit(target), 'pace'))
end
return {#targets == PAGE and rank + PAGE or 0, blanked}

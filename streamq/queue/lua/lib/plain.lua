-- plain: what stands in the way of mails, as far as it has a name. Of a queue where nothing is limited, slowed or closed,
-- as most are on most days, this is no question to the server beyond `ask_there`.
-- needs: base

local FEW_NAMES = 100 -- of a kind that are read at once

-- '*', route, '<route>|<site>', '*|<site>', … → true: it has a limit, a pace or a pause. nil: they are too many to be read
-- at once. keys: hashes that have such names as fields
local function obstacles_in(...)
  local found = {}
  local slowed = has(K.throttled) and redis.call('ZRANGE', K.throttled, 0, FEW_NAMES) or {}
  if #slowed > FEW_NAMES then return nil end
  for _, name in ipairs(slowed) do found[name] = true end
  for _, key in ipairs({...}) do
    if has(key) and redis.call('HLEN', key) > FEW_NAMES then return nil end
    for _, name in ipairs(has(key) and redis.call('HKEYS', key) or {}) do found[name] = true end
  end
  return found
end

-- What a key says of each row's entry, in one command; where it is not there nothing is asked. → entry → value
-- column: where the entry stands in a row
local function said_of_all(verb, key, column)
  local asked, said = {}, {}
  if #ARGV == HEAD or not has(key) then return said end
  for at = HEAD + column, #ARGV, EACH do asked[#asked + 1] = ARGV[at] end
  for nth, value in ipairs(redis.call(verb, key, unpack(asked))) do said[asked[nth]] = value end
  return said
end

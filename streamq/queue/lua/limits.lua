-- limits: a layer says what limits are set; what holds is made anew from all layers, in the same script. A field of a
-- more specific target inherits the parts (windows, transactions at once) that nobody sets for it, so that who reads
-- takes the most specific field and is done.
-- needs: base
-- KEYS: {streamq}: absent bell clock due layer limits meta stream
-- ARGV: now verb layer
--   verb   set: the layer says these rows and nothing else; change: these rows anew, the rest as it was; look: no rows
--   layer  providers, own, settings, operator: what a later one says of a part holds; '' with look
-- EACH: field value
--   field  '*' the queue; '<route>'; '<route>|<site>', '*' for any of either
--   value  '50:1000000,60000:3600000000;c5': windows (mails : µs), then transactions at once. A part that is missing:
--          the layer says nothing of it; '-' and 'c0': none. '': the layer says nothing of that field
-- RETURNS: how many fields changed of what holds; 1 while lanes are left to be looked at, else 0
-- EVENTS: none

local now, verb, layer = clock(ARGV[1]), ARGV[2], ARGV[3]
local LAYERS = {'operator', 'settings', 'own', 'providers'} -- the first that says something of a part decides
local LOOKED = 1000 -- lanes in one script, about
local FEW = 50 -- changed fields that are kept by name; of more every lane is looked at
local says = {} -- as LAYERS: field → value

local function known(name)
  for _, each_layer in ipairs(LAYERS) do
    if each_layer == name then return name end
  end
  error('no layer ' .. name)
end

local function keep_layer()
  local key = K.layer(known(layer))
  if verb == 'set' then redis.call('DEL', key) end
  for field, value in each() do
    if value == '' then
      redis.call('HDEL', key, field)
    else
      redis.call('HSET', key, field, value)
    end
  end
end

-- '50:1000000' and '5' of '50:1000000;c5'; nil where nobody says it of exactly this field
local function parts_of(field)
  local windows, slots
  for _, said in ipairs(says) do
    local value = said[field]
    if value then
      windows = windows or value:match('^([^;]+)')
      slots = slots or value:match(';c(%d+)')
    end
  end
  return windows, slots
end

-- What holds for a field, with what it inherits.
local function rule_of(field)
  local route, site = field:match('^([^|]*)|(.*)$')
  local windows, slots = parts_of(field)
  for _, wider in ipairs(route and {'*|' .. site, route .. '|*', '*|*'} or {}) do
    if windows and slots then break end
    local w, s = parts_of(wider)
    windows, slots = windows or w, slots or s
  end
  return (windows and windows ~= '-' and windows or '') .. (slots and slots ~= '0' and ';c' .. slots or '')
end

-- Of all fields that any layer has. What a site leaves open may come of the route: then the two together have a field.
local function rules()
  local found, sites, routes = {}, {}, {}
  for _, said in ipairs(says) do
    for field in pairs(said) do
      if not found[field] then
        found[field] = rule_of(field)
        local route, site = field:match('^([^|]*)|(.*)$')
        if route == '*' and site ~= '*' then sites[#sites + 1] = site end
        if route and route ~= '*' and site == '*' then routes[#routes + 1] = route end
      end
    end
  end
  for _, route in ipairs(routes) do
    for _, site in ipairs(sites) do
      local both = route .. '|' .. site
      if not found[both] and rule_of(both) ~= found['*|' .. site] then found[both] = rule_of(both) end
    end
  end
  return found
end

-- The fields that changed.
local function keep_rules()
  for at, name in ipairs(LAYERS) do says[at] = info(redis.call('HGETALL', K.layer(name))) end
  local changed, before, after = {}, info(redis.call('HGETALL', K.limits)), rules()
  for field in pairs(before) do
    if not after[field] then
      changed[#changed + 1] = field
      redis.call('HDEL', K.limits, field)
    end
  end
  for field, rule in pairs(after) do
    if before[field] ~= rule then
      changed[#changed + 1] = field
      redis.call('HSET', K.limits, field, rule)
    end
  end
  return changed
end

-- What waits for limits that are no more: it stands in `meta` until every lane was looked at, whoever goes on with it.
local function look_kept()
  local found = redis.call('HGET', K.meta, 'look')
  return found and cjson.decode(found) or nil
end

local function look_for(changed)
  local look = look_kept() or {fields = {}}
  for _, field in ipairs(changed) do look.fields[#look.fields + 1] = field end
  if #look.fields > FEW then look.fields = {'*'} end
  look.p, look.cursor = 1, '0'
  redis.call('HSET', K.meta, 'look', cjson.encode(look))
end

local function concerns(lane, fields)
  local ways, site = lane:match('^([^|]*)|(.*)$')
  if fields['*'] or fields['*|*'] or fields['*|' .. site] then return true end
  for way in ways:gmatch('[^>]+') do
    if fields[way] or fields[way .. '|*'] or fields[way .. '|' .. site] then return true end
  end
  return false
end

-- A page of one priority; how many lanes it had. By ZSCAN: what stands there all the time is visited, however often
-- release moves it meanwhile.
local function look_at_page(look, fields)
  local due = K.due(NAMES[look.p])
  local page = redis.call('ZSCAN', due, look.cursor, 'COUNT', LOOKED)
  local command = {'ZADD', due, 'XX'}
  for at = 1, #page[2], 2 do
    local lane = page[2][at]
    if tonumber(page[2][at + 1]) > now and concerns(lane, fields) then
      command[#command + 1] = text(now)
      command[#command + 1] = lane
    end
    if #command > LOOKED then
      redis.call(unpack(command))
      command = {'ZADD', due, 'XX'}
    end
  end
  if #command > 3 then redis.call(unpack(command)) end
  look.cursor = page[1]
  if look.cursor == '0' then look.p = look.p + 1 end
  return #page[2] / 2
end

-- True while lanes are left.
local function look_on(look)
  local fields, seen = {}, 0
  for _, field in ipairs(look.fields) do fields[field] = true end
  while look.p <= #NAMES and seen < LOOKED do seen = seen + look_at_page(look, fields) end
  return look.p <= #NAMES
end

local changed = {}
if verb ~= 'look' then
  keep_layer()
  changed = keep_rules()
  if #changed > 0 then look_for(changed) end
end
local look = look_kept()
local left = look ~= nil and look_on(look)
if left then
  redis.call('HSET', K.meta, 'look', cjson.encode(look))
elseif look then
  redis.call('HDEL', K.meta, 'look')
  if redis.call('XLEN', K.bell) == 0 then redis.call('XADD', K.bell, '*', 'due', '1') end
end
return {#changed, left and 1 or 0}

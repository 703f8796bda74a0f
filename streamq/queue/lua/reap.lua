-- reap: consumers that hold nothing and were not heard of are deleted, their dots with them. (Deleting one that
-- still has leases would lose those mails: the group is past their ids.)
-- needs: base
-- KEYS: {streamq}: absent bell dots meta stream
-- ARGV: idle consumer
--   idle      ms; consumers that were silent for longer      consumer  this one, whatever its idle time; '' none
-- RETURNS: the names deleted
-- EVENTS: none

local idle, named = tonumber(ARGV[1]), ARGV[2]
redis.call('DEL', K.absent)
local streams = {K.bell}
for _, name in ipairs(NAMES) do streams[#streams + 1] = K.stream(name) end

local busy, silent = {}, {}
for _, stream in ipairs(streams) do
  for _, row in ipairs(delivered(stream) and redis.call('XINFO', 'CONSUMERS', stream, GROUP) or {}) do
    local found = info(row)
    local name = found['name']
    if found['pending'] > 0 or (found['idle'] < idle and name ~= named) then
      busy[name] = true
    else
      silent[name] = true
    end
  end
end
local gone = {}
for name in pairs(silent) do
  if not busy[name] then
    for _, stream in ipairs(streams) do redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, name) end
    gone[name] = true
  end
end
for _, field in ipairs(redis.call('HKEYS', K.dots)) do
  if not busy[field:match('^(.*)/[^/]*$')] then redis.call('HDEL', K.dots, field) end
end
local names = {}
for name in pairs(gone) do names[#names + 1] = name end
return names

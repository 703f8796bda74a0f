-- open: makes a queue ready: priorities' digits, salt, groups. Again whenever a group is missing.
-- needs: base
-- KEYS: {streamq}: absent bell counts meta stream
-- ARGV: format salt events_kept priorities
--   format      version of the keys' layout      salt  random bytes, kept if there is one already
--   events_kept  about how many events the stream keeps
--   priorities  comma list; digits are given in order, names that have one keep it
-- RETURNS: an error where there are more than ten priorities, else: format found ('' if new), salt, priorities in order of their digits
-- EVENTS: none

local format, salt, kept, priorities = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
redis.call('DEL', K.absent)
local found = redis.call('HGET', K.meta, 'format') or ''
if found ~= '' and found ~= format then return {found, '', ''} end

local digit = {}
for at, name in ipairs(NAMES) do digit[name] = at end
for name in priorities:gmatch('[^,]+') do
  if not digit[name] then
    NAMES[#NAMES + 1] = name
    digit[name] = #NAMES
  end
end
if #NAMES > 10 then
  return redis.error_reply('ERR a queue has at most ten priorities, ever: ' .. table.concat(NAMES, ','))
end
redis.call('HSET', K.meta, 'format', format, 'events_kept', kept, 'priorities', table.concat(NAMES, ','))
local is_made = redis.call('HSETNX', K.meta, 'salt', salt) == 1
if is_made and not has(K.counts) then redis.call('HSET', K.meta, 'ids', '-') end -- a new queue knows none (lib/seen)

-- At id 0, not $: producers may have come first. A group that is made again re-reads what lies in its stream:
-- up to the id that is last now, nothing may be taken back from an index (lib/lease).
for at, name in ipairs(NAMES) do
  local stream = K.stream(name)
  if not delivered(stream) then
    local last = redis.call('EXISTS', stream) == 1 and redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
    if last then redis.call('HSET', K.meta, 'reread:' .. (at - 1), last[1]) end
    redis.call('XGROUP', 'CREATE', stream, GROUP, '0', 'MKSTREAM')
  end
end
if not delivered(K.bell) then redis.call('XGROUP', 'CREATE', K.bell, GROUP, '0', 'MKSTREAM') end
return {found, redis.call('HGET', K.meta, 'salt'), table.concat(NAMES, ',')}

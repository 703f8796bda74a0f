-- child: which entries came of an expanded mail. `@of` and `@n` alone prove nothing, since whoever may XADD can write
-- them: an end of such an entry would count down a body that others share. So the body notes the ids that `expand` made.
-- In one script nobody else adds an entry, and a stream takes no id below its last one: all that stands from the first to
-- the last id of a chunk, in that stream, are its children. (A secret in the body was the alternative that lost: those
-- who may XADD can read.)
-- needs: base

local KIN = 500 -- numbers whose chunks stand in one field, ids:<k>: 'first last first last …'

local function kin_field(nth) return 'ids:' .. string.format('%d', math.floor((nth - 1) / KIN)) end

local made = {} -- parent → field → what stands in it: a batch has many of one chunk
local function made_in(parent, field)
  made[parent] = made[parent] or {}
  made[parent][field] = made[parent][field] or redis.call('HGET', K.body(parent), field) or ''
  return made[parent][field]
end

local function is_within(ids, id)
  for first, last in ids:gmatch('(%S+) (%S+)') do
    if not before(id, first) and not before(last, id) then return true end
  end
  return false
end

-- The entry that one of these fields came of, in the same stream; nil where it is no child.
local function parent_of(entry, map)
  local parent, nth = (map['@of'] or ''):match('^%d+%-%d+$'), tonumber((map['@n'] or ''):match('^%d+$'))
  if not parent or not nth or nth > 1000000 or parent:byte(1) ~= entry:byte(1) then return nil end
  return is_within(made_in(parent, kin_field(nth)), entry:sub(2)) and parent or nil
end

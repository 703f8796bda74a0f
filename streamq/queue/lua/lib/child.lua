-- child: which entries came of an expanded mail. `@of` and `@n` alone prove nothing, since whoever may XADD can write
-- them: an end of such an entry would count down a body that others share. So the body notes the ids that `expand` made.
-- In one script nobody else adds an entry, and a stream takes no id below its last one: all that stands from the first to
-- the last id of a chunk, in that stream, are its children. (A secret in the body was the alternative that lost: those
-- who may XADD can read.)
-- needs: base

local KIN = 500 -- numbers whose chunks stand in one field, ids:<k>: 'first last first last …'

local function kin_field(nth) return 'ids:' .. string.format('%d', math.floor((nth - 1) / KIN)) end

-- Of an expanded mail's child: the entry that it came of, which events.py puts in front of all else.
local function parent_in(tail) return tail:match('^"parent":"(%d+%-%d+)"') end

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

-- The same of an entry that somebody deleted, whose fields nobody can read any more: by its id, among the bodies of
-- about its time, the newest first. What a script looks at is bounded: nil may mean that it was not found.
local LOOKED, SLACK = 1000, 60000 -- fields of all its rows together; ms
local looked = 0
local function parent_of_gone(entry)
  if not has(K.bodies) then return nil end
  local id = entry:sub(2)
  local till = text(time_of(id) + SLACK)
  for _, parent in ipairs(redis.call('ZREVRANGEBYSCORE', K.bodies, till, '-inf', 'LIMIT', 0, LOOKED)) do
    local many = parent:byte(1) == entry:byte(1) and tonumber(redis.call('HGET', K.body(parent), 'made') or '0') or 0
    for nth = 1, many, KIN do
      if is_within(made_in(parent, kin_field(nth)), id) then return parent end
      looked = looked + 1
    end
    looked = looked + 1
    if looked >= LOOKED then return nil end
  end
end

-- Of a mail that ends before all its children are made, those that there might have been let go of the body.
local function let_rest(entry)
  if has(K.bodies) and redis.call('ZSCORE', K.bodies, entry) then
    local known = redis.call('HMGET', K.body(entry), 'all', 'made')
    let_body(entry, tonumber(known[1] or 0) - tonumber(known[2] or 0))
  end
end

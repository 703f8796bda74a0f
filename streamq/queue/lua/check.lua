-- check: visits a chunk of the spool, or of an index, and says where everything stands. Changes nothing.
-- needs: base lease index child classify
-- KEYS: {streamq}: bodies body counts due held lane meta parked schedule stream turns
-- ARGV: what p from many
--   what   stream (of priority p), schedule, held, parked, lease (PEL of priority p), totals, children (in the stream
--     of priority p), or bodies
--   p      digit of a priority
--   from   exclusive id, rank or member to go on from; '' at the start      many  at most so many (100)
-- RETURNS: stream: next from ('' at the end), then per entry: entry, state
--   schedule, held, parked, lease: next from, then the entries that no stream holds any more; of parked also the
--     members (they have a `|`) that no entry leads to
--   totals: '', then per kind: kind, its sum in counts, its ZCARD
--   children: next from, then of each entry that is a child: the entry that it came of
--   bodies: next from, then per shared body: whose children share it, left, how many children are to come
-- EVENTS: none

local what, p, from, many = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local out = {''}

local function orphan(entry)
  local _, id, stream = split(entry)
  if not exists(stream, id) then out[#out + 1] = entry end
end

local function visit_stream()
  local stream = K.stream(NAMES[p + 1])
  local last = delivered(stream) or '0-0'
  local found = behind(stream, from, '+', many)
  for _, row in ipairs(found) do
    out[#out + 1] = p .. row[1]
    out[#out + 1] = classify(p .. row[1], stream, row[1], last)
  end
  if #found == many then out[1] = found[#found][1] end
end

local function visit_index(key)
  local rank = tonumber(from == '' and 0 or from)
  local found = redis.call('ZRANGE', key, rank, rank + many - 1)
  for _, member in ipairs(found) do
    if key ~= K.parked then
      orphan(member)
    elseif is_stray(member) then
      out[#out + 1] = member
    else
      orphan(unpadded(member))
    end
  end
  if #found == many then out[1] = text(rank + many) end
end

local function visit_leases()
  local stream = K.stream(NAMES[p + 1])
  local found = redis.call('XPENDING', stream, GROUP, from == '' and '-' or '(' .. from, '+', many)
  for _, row in ipairs(found) do orphan(p .. row[1]) end
  if #found == many then out[1] = found[#found][1] end
end

local function totals()
  for kind, key in pairs({parked = K.parked, scheduled = K.schedule, held = K.held}) do
    local sum = 0
    for at = 1, #NAMES do sum = sum + tonumber(redis.call('HGET', K.counts, kind .. ':' .. (at - 1)) or 0) end
    out[#out + 1] = kind
    out[#out + 1] = sum
    out[#out + 1] = redis.call('ZCARD', key)
  end
end

local function visit_children()
  local found = behind(K.stream(NAMES[p + 1]), from, '+', many)
  for _, row in ipairs(found) do
    out[#out + 1] = parent_of(p .. row[1], info(row[2]))
  end
  if #found == many then out[1] = found[#found][1] end
end

local function visit_bodies()
  local rank = tonumber(from == '' and 0 or from)
  local found = redis.call('ZRANGE', K.bodies, rank, rank + many - 1)
  for _, parent in ipairs(found) do
    local _, id, stream = split(parent)
    local known = redis.call('HMGET', K.body(parent), 'left', 'all', 'made')
    local to_come = exists(stream, id) and tonumber(known[2] or 0) - tonumber(known[3] or 0) or 0
    out[#out + 1] = parent
    out[#out + 1] = known[1] or ''
    out[#out + 1] = to_come
  end
  if #found == many then out[1] = text(rank + many) end
end

if what == 'stream' then visit_stream()
elseif what == 'children' then visit_children()
elseif what == 'bodies' then visit_bodies()
elseif what == 'lease' then visit_leases()
elseif what == 'totals' then totals()
else visit_index(({schedule = K.schedule, held = K.held, parked = K.parked})[what]) end
return out

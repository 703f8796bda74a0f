-- outcome: what a route's last outcomes say of it, over all workers; in `limit:<route>`, gone after an idle hour.
-- GOOD     who was judged there of late: a worker whose own connections fail while others' do not is in trouble alone.
-- BREAKER  one sign for each of the last hundred outcomes, made at the first final failure that is not about its
--          recipient and gone when none is among them: until then a route pays nothing for it.
-- needs: base

local GOOD_LASTS, GOOD_EVERY = 10000000, 1000000 -- µs
local RING, MOST_OF_RING, RING_KEPT = 100, 50, 25
local RECORD_LASTS = 3600000 -- ms
local LETTERS = 'abcdefghijklmnopqrstuvwxyz'

local records = {} -- route → {good = list of {who, at}, ring, texts = letter → text}

local function record_of(route)
  local record = records[route]
  if not record then
    local found = redis.call('HMGET', K.limit(route), 'good', 'ring', 'texts')
    record = {good = {}, ring = found[2] or '', texts = found[3] and cjson.decode(found[3]) or {}}
    for who, at in (found[1] or ''):gmatch('([^ ,]+) (%d+)') do
      record.good[#record.good + 1] = {who = who, at = tonumber(at)}
    end
    records[route] = record
  end
  return record
end

-- Whether it is known by now that it works for this consumer; or, since that is asked about others, for two of them.
local function is_noted(record, consumer, now, within)
  local others = 0
  for _, good in ipairs(record.good) do
    if now - good.at < within then
      if good.who == consumer then return true end
      others = others + 1
    end
  end
  return others > 1
end

-- The last two that were judged: written once a second each.
local function note_good(route, consumer, now)
  local record = record_of(route)
  if is_noted(record, consumer, now, GOOD_EVERY) then return end
  local other
  for _, good in ipairs(record.good) do
    if good.who ~= consumer then other = other or good end
  end
  record.good = {{who = consumer, at = now}, other}
  record.noted = true
end

-- Whether one more good word of this consumer's changes nothing, or may wait.
local function goes_on(route, consumer, now)
  local record = record_of(route)
  return record.ring == '' and is_noted(record, consumer, now, 2 * GOOD_EVERY)
end

local function works_for_others(route, consumer, now)
  for _, good in ipairs(record_of(route).good) do
    if good.who ~= consumer and now - good.at < GOOD_LASTS then return true end
  end
  return false
end

local function add_sign(record, sign)
  record.ring = (record.ring .. sign):sub(-RING)
  record.turned = true
end

-- An outcome that is no such failure.
local function other_outcome(route)
  local record = record_of(route)
  if record.ring ~= '' then add_sign(record, '.') end
end

-- How many of the last hundred outcomes died of this text, with this one. (A letter that stands in the ring no more is
-- free; where all are taken no text has the majority.)
local function same_failures(route, why)
  local record = record_of(route)
  local letter, free
  for each in LETTERS:gmatch('.') do
    if record.ring:find(each, 1, true) then
      if record.texts[each] == why then letter = each end
    else
      record.texts[each] = nil
      free = free or each
    end
  end
  if not letter and free then record.texts[free] = why end
  letter = letter or free
  add_sign(record, letter or '.')
  if not letter then return 0 end
  local _, many = record.ring:gsub(letter, '')
  return many
end

-- After a pause a few are remembered: enough to be quicker the next time, too few to trip on one more.
local function forgive(route, kept)
  local record = record_of(route)
  if record.ring ~= '' then
    record.ring = kept > 0 and record.ring:sub(-kept) or ''
    record.turned = true
  end
end

-- Once, at a script's end.
local function keep_records()
  for route, record in pairs(records) do
    if record.noted then
      local said = {}
      for _, good in ipairs(record.good) do said[#said + 1] = good.who .. ' ' .. text(good.at) end
      redis.call('HSET', K.limit(route), 'good', table.concat(said, ','))
    end
    if record.turned and record.ring:find('%a') then
      redis.call('HSET', K.limit(route), 'ring', record.ring, 'texts', cjson.encode(record.texts))
    elseif record.turned then
      redis.call('HDEL', K.limit(route), 'ring', 'texts')
    end
    if record.noted or record.turned then outlast(K.limit(route), RECORD_LASTS) end
  end
end

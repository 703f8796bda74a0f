-- seen: idempotency. Buckets of a hash per generation: 10-byte digest of (tenant, id) → the owning entry, packed
-- (priority 1 byte, ms 6, seq as few as it needs), and before it 4 bytes of content hash: about 30 bytes an id.
-- A generation is as long as the window; the one before it is asked too, so an id is known for one to two windows.
-- needs: base

local SEEN_BUCKETS = 8192 -- listpacks up to two and a half million ids a window, four where they do not count up

local function bytes_of(number, many) -- big-endian, `many` bytes or as few as it needs; up to 7
  local bytes, first = {0, 0, 0, 0, 0, 0, 0}, many and 8 - many or 8
  local at = 8
  while number > 0 do
    at = at - 1
    bytes[at] = number % 256
    number = (number - bytes[at]) / 256
  end
  return string.char(unpack(bytes, math.min(at, first)))
end

local function number_of(bytes)
  local number = 0
  for at = 1, #bytes do number = number * 256 + bytes:byte(at) end
  return number
end

local AS_TEXT = string.rep('\255', 6) -- an id that somebody gave, too large for 6 bytes or for a Lua number
local packed_ms, packed_time -- a burst's entries share their time
-- before: bytes that go in front
local function pack_id(before, digit, ms, seq)
  if #ms > 14 or #seq > 15 then return before .. digit .. AS_TEXT .. ms .. '-' .. seq end
  if ms ~= packed_ms then packed_ms, packed_time = ms, bytes_of(tonumber(ms), 6) end
  local number = tonumber(seq)
  if number == 0 then return before .. digit .. packed_time end
  if number < 256 then return before .. digit .. packed_time .. string.char(number) end
  return before .. digit .. packed_time .. bytes_of(number)
end

local function pack_entry(entry) return pack_id('', entry:sub(1, 1), id_parts(entry:sub(2))) end

local function unpack_entry(packed)
  if packed:sub(2, 7) == AS_TEXT then return packed:sub(1, 1) .. packed:sub(8) end
  return packed:sub(1, 1) .. text(number_of(packed:sub(2, 7))) .. '-' .. text(number_of(packed:sub(8)))
end

-- A whole number below 10,000 as text: through printf it costs five times as much.
local function digits_of(number)
  local ones = number % 10
  local rest = (number - ones) / 10
  if rest == 0 then return string.char(48 + ones) end
  local tens = rest % 10
  rest = (rest - tens) / 10
  if rest == 0 then return string.char(48 + tens, 48 + ones) end
  local hundreds = rest % 10
  rest = (rest - hundreds) / 10
  if rest == 0 then return string.char(48 + hundreds, 48 + tens, 48 + ones) end
  return string.char(48 + rest, 48 + hundreds, 48 + tens, 48 + ones)
end

-- Which generations have ids stands in `meta`: '<window> <the latest> <the one before it>', '?' where nobody knows; '-': of
-- a new queue none has. So the last one is asked only where it can know an id.
local this_generation, last_generation -- key names up to the bucket
local two_windows -- ms, as text
local last_is_empty -- known to have no ids
local ids_now -- what `meta` has to say before an id is taken; nil where it says so
local function generations(now, window)
  local generation = math.floor(now / 1000 / window)
  local this, last, length = text(generation), text(generation - 1), text(window)
  this_generation, last_generation = K.seen(this, ''), K.seen(last, '')
  two_windows = text(window * 2)
  local of, latest, earlier = string.match(settings[3] or '', '^(%d+) (%d+) (%S+)$')
  if settings[3] == '-' then
    last_is_empty, ids_now = true, length .. ' ' .. this .. ' -'
  elseif of ~= length then
    last_is_empty, ids_now = false, length .. ' ' .. this .. ' ?'
  elseif tonumber(latest) > generation then -- the clock went back: what it was ahead of stays on record
    last_is_empty, ids_now = false, length .. ' ' .. latest .. ' ?'
    if earlier == '?' then ids_now = nil end
  elseif latest == this then
    last_is_empty, ids_now = earlier ~= last and earlier ~= '?', nil
  else
    last_is_empty, ids_now = latest ~= last, length .. ' ' .. this .. ' ' .. latest
  end
end

local function note_generation(now, window)
  if not this_generation then generations(now, window) end
  if ids_now then redis.call('HSET', K.meta, 'ids', ids_now) end
  ids_now = nil
end

-- In this generation, and in the last one, where that may know an id; bucket: as text
local function bucket_keys(bucket, now, window)
  if not this_generation then generations(now, window) end
  return this_generation .. bucket, not last_is_empty and last_generation .. bucket
end

local function seen_keys(digest, now, window)
  local high, low = byte(digest, 1, 2)
  return bucket_keys(digits_of((high * 256 + low) % SEEN_BUCKETS), now, window)
end

-- Bytes that all ids take, about: digests fall evenly, tens of them where they count up, so that some buckets, each second
-- others, stand for all.
local SAMPLED = 64
local function ids_bytes(now, window)
  generations(now, window)
  local step, used = SEEN_BUCKETS / SAMPLED, 0
  local first = math.floor(now / 1000000) % step
  for slot = first, SEEN_BUCKETS - 1, step do
    used = used + (redis.call('MEMORY', 'USAGE', this_generation .. digits_of(slot)) or 0)
    used = used + (redis.call('MEMORY', 'USAGE', last_generation .. digits_of(slot)) or 0)
  end
  return used * step
end

-- entry, content hash of the owner; nil where the id is new
local function seen(digest, now, window)
  local this, last = seen_keys(digest, now, window)
  local found = redis.call('HGET', this, digest) or last and redis.call('HGET', last, digest)
  if found then return unpack_entry(found:sub(5)), found:sub(1, 4) end
  return nil
end

-- A new id gets its owner: content hash and packed entry. False where it has one in this generation.
-- made: its bucket is known to have been there
local function own(bucket, digest, owner, made)
  if redis.call('HSETNX', bucket, digest, owner) == 0 then return false end
  if not made and redis.call('HLEN', bucket) == 1 then redis.call('PEXPIRE', bucket, two_windows) end
  return true
end

-- As `seen`, and a new id gets this owner.
local function see(digest, owner, now, window)
  note_generation(now, window)
  local this, last = seen_keys(digest, now, window)
  local found = last and redis.call('HGET', last, digest)
  if not found then
    if own(this, digest, owner) then return nil end
    found = redis.call('HGET', this, digest)
  end
  return unpack_entry(found:sub(5)), found:sub(1, 4)
end

-- Which of these keys there are, as far as that is told by few commands: nth → true. Where most of a part are there, its
-- halves are asked.
local ASKED_LEAST = 4
local function ask_made(keys, from, to, made)
  local many = to - from + 1
  local found = redis.call('EXISTS', unpack(keys, from, to))
  if found == many then
    for at = from, to do made[at] = true end
  elseif found * 4 >= many * 3 and many > ASKED_LEAST then
    local middle = math.floor((from + to) / 2)
    ask_made(keys, from, middle, made)
    ask_made(keys, middle + 1, to, made)
  end
end

-- Ids of one bucket that are known to be new; command: 'HSET', the bucket, digests and owners
local function own_all(key, command, made)
  local added = redis.call(unpack(command))
  if not made and redis.call('HLEN', key) == added then redis.call('PEXPIRE', key, two_windows) end
end

-- Ids of one bucket, which share two commands: places of those in the batch.
local function see_together(key, last, places, digests, owners, known, made)
  local asked, command, filled, mine = {'HMGET', key}, {'HSET', key}, 2, {}
  for nth, at in ipairs(places) do asked[nth + 2] = digests[at] end
  local found, before = redis.call(unpack(asked)), {}
  if last then
    asked[2] = last
    before = redis.call(unpack(asked))
  end
  for nth, at in ipairs(places) do
    local digest = digests[at]
    if found[nth] or before[nth] or mine[digest] then
      known[at] = true
    else
      mine[digest] = true
      command[filled + 1], command[filled + 2] = digest, owners[at]
      filled = filled + 2
    end
  end
  if filled > 2 then own_all(key, command, made) end
end

-- Those of many that are known already: place → true. The others have their owners now. Ids that count up share buckets
-- (`digest_of`), and their commands; and one command tells which buckets this generation has. (Of a first one a few ids
-- are mostly of new ones.)
local MANY_IDS = 50
local function see_all(digests, owners, now, window)
  local known = {}
  if #digests == 0 then return known end
  note_generation(now, window)
  local places, keys, lasts = {}, {}, {} -- bucket's key → places; keys in order of their first
  local nth_of, nth = {}, 0 -- two bytes → which bucket
  for at, digest in ipairs(digests) do
    local kin = sub(digest, 1, 2)
    local which = nth_of[kin]
    if which then
      local there = places[which]
      there[#there + 1] = at
    else
      nth = nth + 1
      nth_of[kin], places[nth] = nth, {at}
      keys[nth], lasts[nth] = seen_keys(digest, now, window)
    end
  end
  local made = {}
  if not last_is_empty or #digests >= MANY_IDS then ask_made(keys, 1, nth, made) end
  for which, key in ipairs(keys) do
    local here, last = places[which], lasts[which]
    local at = here[1]
    if here[2] then
      see_together(key, last, here, digests, owners, known, made[which])
    elseif last and redis.call('HGET', last, digests[at]) or not own(key, digests[at], owners[at], made[which]) then
      known[at] = true
    end
  end
  return known
end

-- A mail that was parked unlooked-at (sift): its content's hash is not known yet.
local UNHASHED = '\0\0\0\0'

-- It was taken by this script, for nothing.
local function disclaim(digest, now, window) redis.call('HDEL', seen_keys(digest, now, window), digest) end

-- Its hash, once it was looked at.
local function hashed(digest, hash, entry, now, window)
  local this, last = seen_keys(digest, now, window)
  local packed = pack_entry(entry)
  for _, key in ipairs({this, last or nil}) do
    if redis.call('HGET', key, digest) == UNHASHED .. packed then redis.call('HSET', key, digest, hash .. packed) end
  end
end

local function content(stream, id)
  local found = redis.call('XRANGE', stream, id, id)[1]
  if not found then return nil end
  local given = info(found[2])
  given['id'], given['traceparent'] = nil, nil
  for name, value in pairs(given) do
    if value == '' then given[name] = nil end
  end
  return given
end

-- Whether the owner of an id has this mail's content. Where its hash is not known, what both hold is compared; where
-- it is gone, too, the same is assumed: nothing is sent twice.
local function same_content(owner, owner_hash, hash, digest, stream, id, now, window)
  if owner_hash ~= UNHASHED then return owner_hash == hash end
  local _, owner_id, owner_stream = split(owner)
  local theirs, ours = content(owner_stream, owner_id), content(stream, id)
  if not theirs or not ours then return true end
  for name, value in pairs(theirs) do
    if ours[name] ~= value then return false end
  end
  for name in pairs(ours) do
    if theirs[name] == nil then return false end
  end
  hashed(digest, hash, owner, now, window)
  return true
end

-- A mail that ends without having been sent gives its id free.
local function unsee(digest, entry, now, window)
  local this, last = seen_keys(digest, now, window)
  local packed = pack_entry(entry)
  for _, key in ipairs({this, last or nil}) do
    local found = redis.call('HGET', key, digest)
    if found and found:sub(5) == packed then redis.call('HDEL', key, digest) end
  end
end

-- As identity.py does it: two bytes of SHA-1 over tenant, NUL, and the id without its last digit, so that ids which count
-- up stand together; and eight over tenant, NUL, id.
local function digest_of(tenant, id)
  local whose = (tenant or '') .. '\0'
  local head, tail = id:match('^(.*)%d(%D*)$')
  local kin, whole = redis.sha1hex(whose .. (head and head .. tail or id)), redis.sha1hex(whose .. id)
  return struct.pack('>I5I5', tonumber(sub(kin, 1, 4) .. sub(whole, 1, 6), 16), tonumber(sub(whole, 7, 16), 16))
end

-- letter: dead letters and the room they take: bytes of names and values, counted where a letter comes and goes.
-- needs: base

-- What `sensitive` mails and those of some classes leave behind (lib/dead).
local BODY = {text = true, html = true, raw = true, attachments = true, vars = true, recipients = true}

-- What is no flag was meant as one, too.
local function is_sensitive(fields) return (fields['sensitive'] or '') ~= '' and fields['sensitive'] ~= '0' end

-- The same of a flat list, in which a field may stand twice: one that says so is enough.
local function is_secret(flat)
  for at = 1, #flat, 2 do
    if flat[at] == 'sensitive' and is_sensitive({sensitive = flat[at + 1]}) then return true end
  end
  return false
end

local function letter_bytes(flat)
  local bytes = 0
  for _, part in ipairs(flat) do bytes = bytes + #tostring(part) end
  return bytes
end

local function letter_at(id) return redis.call('XRANGE', K.dead, id, id)[1] end

-- It is gone; how many bytes that were.
local function discard(id, flat)
  local bytes = letter_bytes(flat)
  redis.call('XDEL', K.dead, id)
  count('dead_bytes', -bytes)
  return bytes
end

-- What they take all together, with what a batch has gathered.
local function all_bytes()
  local gathered = gathering and gathering.counts.dead_bytes or 0
  return tonumber(redis.call('HGET', K.counts, 'dead_bytes') or '0') + gathered
end

-- The first to go: {id, flat}; nil where there is none. What somebody deleted past us is forgotten then.
local function oldest_letter()
  local row = redis.call('XRANGE', K.dead, '-', '+', 'COUNT', 1)[1]
  if row then return row end
  redis.call('HDEL', K.counts, 'dead_bytes')
  if gathering then gathering.counts.dead_bytes = nil end
  return nil
end

-- How many go in one call, and how many bytes they have: each is read, to know what it takes.
local GONE_MOST, READ_MOST = 100, 4000000

-- notes: what must be remembered of a mail beside its entry; made when first needed, gone with the mail.
-- needs: base lease child


local function notes_of(entry)
  local found = has(K.notes) and redis.call('HGET', K.notes, entry)
  return found and cjson.decode(found) or {}
end

local function note(entry, notes)
  has_now(K.notes)
  redis.call('HSET', K.notes, entry, cjson.encode(notes))
end

-- Held from here on, and why. `said`: what its last reply was taken for, until it goes on.
local function held_for(notes, reason, class)
  if not notes.reason then notes.said = notes.class end
  notes.reason, notes.class = reason, class
end

local function held_no_more(notes) notes.reason, notes.class, notes.said = nil, notes.said, nil end

local function expire_at(entry, ms)
  has_now(K.expiry)
  redis.call('ZADD', K.expiry, text(ms), entry)
end

-- 'hold', 'cancel' or 'bounce', where an operator asked for it while the mail could not be reached
local function intent_of(entry) return has(K.holds) and redis.call('HGET', K.holds, 'intent:' .. entry) or nil end

local function drop_intent(entry)
  if has(K.holds) then redis.call('HDEL', K.holds, 'intent:' .. entry) end
end

-- Fields that held mails wait for are counted, so that a version that knows one finds them.
local function need(notes, by)
  for _, field in ipairs(notes.fields or {}) do
    has_now(K.holds)
    if redis.call('HINCRBY', K.holds, 'need:' .. field, by) <= 0 then redis.call('HDEL', K.holds, 'need:' .. field) end
  end
end

-- A mail that waited for newer ones of its key waits no more.
local function stop_waiting(entry, notes)
  if notes.collapse and redis.call('HGET', K.collapse, notes.collapse) == entry then
    redis.call('HDEL', K.collapse, notes.collapse)
  end
end

-- Whatever hangs on a mail that ends.
local function forget(entry)
  if has(K.collapse) then stop_waiting(entry, notes_of(entry)) end
  if has(K.holds) then need(notes_of(entry), -1) end
  if has(K.notes) then redis.call('HDEL', K.notes, entry) end
  if has(K.expiry) then redis.call('ZREM', K.expiry, entry) end
  drop_intent(entry)
end

-- Its entry was deleted by somebody.
local function vanish(entry, stream, id)
  leave(stream, id)
  forget(entry)
  local parent = parent_of_gone(entry)
  if parent then let_body(parent, 1) end
  let_rest(entry)
  count('vanished', 1)
end

-- expand: a mail of several recipients becomes one mail each, a chunk a call, in their order: the children are entries
-- of the same stream and share the body. Resumes where an earlier call, of whichever worker, ended; of a mail that died
-- half made and was requeued, behind those that have theirs. With the last child the mail itself ends. Memory that is
-- full stops it before it changes anything.
-- needs: base lease index child notes seen event letter dead
-- KEYS: {streamq}: absent bodies body clock collapse counts dead events expiry held holds meta notes schedule seen
--   stream
-- ARGV: now consumer window verb entry token id tail upload all from
--   verb     more; back: the mail goes on the schedule, for the next worker; later: the same, when there may be memory
--   upload   name behind `body:` under which its caller has put what the children share; it becomes the mail's
--   all      how many children it will have     from   how many there are, as its caller knows
-- EACH: name value vars metadata child
--   name     of the field that holds the recipient: to, envelope_to      value  the recipient
--   vars     '' for none      metadata  '' for none      child  the producer's id of this one, '' for none
-- RETURNS: status, made (how many children there are), then the children's entries
--   status   ok  done (that was the last)  resume (`from` was not where it stands)  upload (nobody has put the body
--     there)  fenced  gone  held  cancelled  bounced (an intent was carried out; held, too, where the stream takes no
--     more entries)
-- EVENTS: email.expanded email.held email.cancelled email.bounced

local LATER = 30000 -- ms
local given, consumer, window, verb, entry, token = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
local producer, tail, upload, all, from = ARGV[7], ARGV[8], ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11])
local now = clock(given, verb == 'more')
local p, id, stream = split(entry)
local key = K.body(entry)

if not owns(stream, id, consumer, token) then return {exists(stream, id) and 'fenced' or 'gone', 0} end
local known = redis.call('HMGET', key, 'made', 'all')
local begun = known[2] ~= false
-- A mail that had died half made goes on behind those that have theirs (requeue).
local made, counted = tonumber(begun and known[1] or notes_of(entry).made or 0), tonumber(known[2] or all)
local event_id = entry .. '.' .. token

local function stop(kind)
  count('total:' .. kind, 1)
  event('email.' .. kind, producer, entry, event_id, now, with(tail, '"made":' .. made .. ',"class":"operator"'))
  return {kind, made}
end

local function held(reason, class)
  local notes = notes_of(entry)
  held_for(notes, reason, class)
  hold(entry)
  note(entry, notes)
  event('email.held', producer, entry, event_id, now, with(tail, '"class":' .. json(class)))
  return {'held', made}
end

local asked = intent_of(entry)
if asked == 'hold' or (not asked and verb ~= 'more') then
  leave(stream, id)
  if asked ~= 'hold' then
    schedule(entry, math.floor(now / 1000) + (verb == 'later' and LATER or 0))
    return {'ok', made}
  end
  drop_intent(entry)
  return held('asked for', 'operator')
elseif asked == 'cancel' then
  disown(known_of(fields_of(stream, id) or {}, entry), entry, now, window)
  remove(entry, stream, id)
  return stop('cancelled')
elseif asked == 'bounce' then
  bury(entry, stream, id, {reason = 'bounced by an operator', class = 'operator'}, now, window)
  return stop('bounced')
end

local function done()
  remove(entry, stream, id)
  count('total:expanded', 1)
  event('email.expanded', producer, entry, event_id, now, with(tail, '"children":' .. all))
end

if from ~= made then return {'resume', made} end
if not begun then
  if made >= all then -- all of them had theirs
    done()
    return {'done', made}
  end
  if redis.call('EXISTS', K.body(upload)) == 0 then return {'upload', made} end
  redis.call('RENAME', K.body(upload), key)
  redis.call('PERSIST', key)
  redis.call('HSET', key, 'left', all - made, 'all', all, 'made', made)
  redis.call('ZADD', K.bodies, text(math.floor(now / 1000)), entry)
  has_now(K.bodies)
end

if counted ~= all then -- the worker before this one was of a version that finds more, or fewer, recipients
  redis.call('HINCRBY', key, 'left', all - counted)
  redis.call('HSET', key, 'all', all)
end

local digit, out, refused = tostring(p), {'ok', 0}, false
local chunks = {} -- ids:<k> → the first and the last id of this chunk
for name, value, vars, metadata, child in each() do
  made = made + 1
  local command = {'XADD', stream, '*', '@of', entry, '@n', tostring(made), name, value}
  local function add(field, given_) command[#command + 1] = field; command[#command + 1] = given_ end
  if vars ~= '' then add('vars', vars) end
  if metadata ~= '' then add('metadata', metadata) end
  if child ~= '' then add('id', child) end
  local id_ = redis.pcall(unpack(command))
  if type(id_) ~= 'string' then -- a stream whose last id is the greatest that there is takes no other
    refused = true
    made = made - 1
    break
  end
  out[#out + 1] = digit .. id_
  local field = kin_field(made)
  chunks[field] = {chunks[field] and chunks[field][1] or id_, id_}
end
redis.call('HSET', key, 'made', made)
for field, ids in pairs(chunks) do
  local others = redis.call('HGET', key, field)
  redis.call('HSET', key, field, (others and others .. ' ' or '') .. ids[1] .. ' ' .. ids[2])
end
if refused then
  leave(stream, id)
  local stopped = held('its stream takes no more entries', 'stream')
  for at = 3, #out do stopped[at] = out[at] end
  return stopped
end
out[2] = made
if made >= all then
  out[1] = 'done'
  done()
end
return out

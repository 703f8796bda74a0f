-- expire: ends mails whose time is over, wherever they stand, without scanning: the index of own deadlines, the
-- oldest held, the head of what was never read, the first of every lane. (The schedule is clipped at deadlines.)
-- needs: base lease index child notes seen event letter dead sha256 whom report
-- KEYS: {streamq}: absent bodies body clock collapse counts dead due events expiry held holds lane lease meta notes
--   parked reports schedule seen shared stream turns
-- ARGV: now window ages lane_from
--   ages        'ms,ms,…': the oldest a mail of each digit may get
--   lane_from   where among the parked the sweep goes on, '' at the start
-- EACH: entry report
--   entry   one of those that the last call returned       report  JSON (lib/report), '-' for none
-- RETURNS: how many ended, lane_from for the next call ('' at the end), then the entries whose time is over, too, and whose senders
--   are to be told: nothing was done to them; they come again, with their reports, before the sweep goes on
-- EVENTS: email.expired; a late email.relayed

local now, window, lane_from = clock(ARGV[1]), tonumber(ARGV[2]), ARGV[4]
local now_ms = math.floor(now / 1000)
local ages = {}
for ms in ARGV[3]:gmatch('%d+') do ages[#ages + 1] = tonumber(ms) end
local MOST, BYTES = 50, 4000000 -- a call ends so many, or so many bytes, read and written to the dead letters
local ended, bytes, token = 0, 0, 0
local brought, due = {}, {}
for entry, report in each() do brought[entry] = report end

local function full() return ended + #due >= MOST or bytes >= BYTES end

local function finish(entry, from, reason)
  local _, id, stream = split(entry)
  local fields = fields_of(stream, id)
  bytes = bytes + letter_bytes(fields or {})
  local report = brought[entry]
  if not report and is_awaited(fields, entry) then
    due[#due + 1] = entry
    return
  end
  if from then displace(entry, from) end
  if fields then
    if token == 0 then token = new_token() end
    local tail, producer, cost = tail_from(fields, entry)
    bytes = bytes + cost
    if producer == '' then producer = entry end
    if not sent_late(entry, stream, id, producer, entry .. '.' .. token, now) then
      bytes = bytes + (bury(entry, stream, id, {reason = reason, class = 'expired'}, now, window) or 0)
      count('total:expired', 1)
      local told = report and report ~= '-' and tell(cjson.decode(report), now) or ''
      event('email.expired', producer, entry, entry .. '.' .. token, now, with(with(tail, '"class":"expired"'), told))
    end
  else
    vanish(entry, stream, id)
  end
  ended = ended + 1
end

local function is_old(entry)
  local p, id = split(entry)
  return time_of(id) + (ages[p + 1] or ages[#ages]) <= now_ms
end

local function has_own_deadline(entry) return redis.call('ZSCORE', K.expiry, entry) and true end

for _, entry in ipairs(redis.call('ZRANGEBYSCORE', K.expiry, '-inf', text(now_ms), 'LIMIT', 0, MOST)) do
  if full() then break end
  local from = place(entry)
  if from then
    finish(entry, from, 'too old: its own deadline is over')
  else
    local _, id, stream = split(entry)
    if holder(stream, id) or exists(stream, id) then -- leased: a deferral looks at its deadline, parking does not
      redis.call('ZADD', K.expiry, text(now_ms + 10000), entry)
    else
      vanish(entry, stream, id)
    end
  end
end

local youngest = math.min(unpack(ages))
for _, entry in ipairs(redis.call('ZRANGEBYSCORE', K.held, '-inf', text(now_ms - youngest), 'LIMIT', 0, 10 * MOST)) do
  if full() then break end
  if is_old(entry) and not has_own_deadline(entry) then finish(entry, 'held', 'too old: max_age is over') end
end

for at, name in ipairs(NAMES) do
  local stream = K.stream(name)
  local last = delivered(stream)
  if last and not is_rereading(at - 1, stream) then
    local oldest = text(math.max(now_ms - (ages[at] or ages[#ages]), 0))
    for _ = 1, 10 do -- one by one: bodies may be large
      local row = not full() and behind(stream, last, oldest, 1)[1]
      if not row then break end
      last = row[1]
      local map = info(row[2])
      local entry = (at - 1) .. row[1]
      if not map['send_at'] and not map['delay'] then finish(entry, nil, 'too old: max_age is over') end
    end
  end
end

-- From lane to lane, and from priority to priority in it: from one's first member to what is behind its last.
local LANES = 100
local at = lane_from == '' and '-' or '[' .. lane_from
for _ = 1, LANES do
  if full() then break end
  local first = redis.call('ZRANGEBYLEX', K.parked, at, '+', 'LIMIT', 0, 1)[1]
  if not first then
    at = ''
    break
  end
  local lane, p = lane_in(first), tonumber(unpadded(first):sub(1, 1))
  for _, member in ipairs(lane_range(lane, p, 100)) do
    local entry = unpadded(member)
    if full() or not is_old(entry) then break end
    if not has_own_deadline(entry) then finish(entry, 'parked', 'too old: max_age is over') end
  end
  at = '[' .. lane .. '|' .. string.char((full() and 48 or 49) + p)
end
return {ended, at:sub(2), unpack(due)}

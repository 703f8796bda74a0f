-- report: what a sender is told of a mail that ended, or is late: a mail of its own, waiting in the least urgent
-- priority, written by the script of that outcome, so that a crash leaves both or none.
-- Its bytes are made of the mail's, by Python (mail/report.py), and brought along. Where the caller could not know that a
-- mail would end, the script says so and changes nothing; the next call brings the report. Two calls and not one, as
-- nothing here can compose a message; and not by way of a lease of the keeper's, which would be a state in between.
-- needs: base dead

-- Whether it was asked for, as far as the mail's fields can tell. (Where no worker has said that this queue sends
-- reports: no.)
local function is_awaited(fields, entry)
  if not fields or redis.call('HGET', K.meta, 'reports') ~= '1' then return false end
  local map = known_of(fields, entry)
  local shared = map.parent and redis.call('HMGET', K.body(map.parent), '=envelope_from', '=dsn_notify') or {}
  local to, notify = map['envelope_from'] or shared[1] or '', map['dsn_notify'] or shared[2] or ''
  if to == '' or to == '<>' then return false end
  -- What JSON may have escaped Python reads; it brings none where none was asked for.
  return notify == '' or notify:find('failure', 1, true) ~= nil or notify:find('\\', 1, true) ~= nil
end

-- At most so many in any window, of any phase: the times of the last ones are kept, the latest first. (A rate as sites
-- have it would let one go every so often: of five that bounce together four senders would never hear.)
-- To one sender; and to all of them together: a thousand forged ones are a thousand senders.
local function may_report(report, now_ms)
  local caps = {[K.reports(redis.sha1hex(report.to:lower()):sub(1, 20))] = report, [K.reports('all')] = report.all}
  for key, cap in pairs(caps) do
    local oldest = redis.call('LINDEX', key, cap.most - 1)
    if oldest and now_ms - tonumber(oldest) < cap.window then return false end
  end
  for key, cap in pairs(caps) do
    redis.call('LPUSH', key, text(now_ms))
    redis.call('LTRIM', key, 0, cap.most - 1)
    redis.call('PEXPIRE', key, text(cap.window))
  end
  return true
end

-- report: nil for none, or {to, most, window (ms), all: {most, window} of all senders, fields: the XADD's}. What its
-- mail's event says of it, '' for nothing.
local function tell(report, now)
  if not report then return '' end
  if not may_report(report, math.floor(now / 1000)) then
    count('total:report_capped', 1)
    return ''
  end
  -- A stream whose last id is the greatest that there is takes no other: that must not hold up what ended.
  local id = redis.pcall('XADD', STREAMS[#STREAMS], '*', unpack(report.fields))
  if type(id) ~= 'string' then
    count('total:report_failed', 1)
    return ''
  end
  count('total:reported', 1)
  return '"report":"' .. (#STREAMS - 1) .. id .. '"'
end

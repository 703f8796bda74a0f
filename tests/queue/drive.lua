-- drive: lib/pace.lua and lib/throttle.lua against a model of a receiver, in virtual time: one target, a backlog that
-- never ends. Whole campaigns in one call, at a microsecond a step; test_pace.py has the scripts themselves.
local model, start, seconds = cjson.decode(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local rtt, lines, capacity = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local target, now, stop = 'main|example.net', start, start + seconds * 1e6
local SPAN = 1e7 -- µs: of a row

local went, oldest, free, tokens, filled, seed = {}, 1, 0, model.burst, start, 7

local function chance()
  seed = (seed * 16807) % 2147483647
  return seed / 2147483647
end

-- Mails per second that it takes at that moment; below 0: all.
local function limit_at(us)
  local limit
  for _, each in ipairs(model.limits) do
    if us - start >= each[1] * 1e6 then limit = each[2] end
  end
  return limit
end

local function has_room(us, limit)
  if model.burst then
    tokens, filled = math.min(model.burst, tokens + (us - filled) / 1e6 * limit), us
    if tokens < 1 then return false end
    tokens = tokens - 1
    return true
  end
  local width = (model.width or 1) * 1e6
  while went[oldest] and went[oldest] <= us - width do oldest = oldest + 1 end
  if #went - oldest + 1 >= limit * width / 1e6 then return false end
  went[#went + 1] = us
  return true
end

-- Whether one more refusal is one too many: model.offences within a minute, if it counts them.
local offended = {}
local function is_offence(us)
  if not model.offences then return true end
  offended[#offended + 1] = us
  local first = offended[#offended - model.offences + 1]
  return first and us - first < 6e7
end

-- box: whoever was refused is refused for so many seconds; grows: and anew for each try
local function takes(us)
  if model.share and chance() < model.share then return false end
  local limit = limit_at(us)
  if limit < 0 then return true end
  local boxed = us < free
  if (not boxed or model.grows) and (boxed or not has_room(us, limit)) then
    if boxed or is_offence(us) then free = us + (model.box or 0) * 1e6 end
    return false
  end
  return not boxed
end

local flight, head, took, first = {}, 1, {}, 1
local rows = {}
for at = 1, math.ceil(seconds * 1e6 / SPAN) do rows[at] = {taken = 0, refused = 0, least = 1e9, most = 0, recovered = 0} end
local function row() return rows[math.min(#rows, math.floor((now - start) / SPAN) + 1)] end

-- Mails per second, as rates.py has it: of late, or of the last second or two.
local function took_of(many)
  if many == 0 then return 0 end
  local span, last = math.floor(now / 1e6) * 1e6 - 1e6, 0
  for at = #took, first, -1 do
    if took[at] < span then break end
    last = last + 1
  end
  return math.max(many / math.max(1, (now - took[first]) / 1e6), last / ((now - span) / 1e6))
end

local function hear(sent)
  if sent.ok then
    took[#took + 1] = now
    if throttle.went_well(target, now, 1, sent.at - rtt) then row().recovered = 1 end
    return
  end
  while took[first] and took[first] < now - 5e6 do first = first + 1 end
  local many = #took - first + 1
  throttle.slowed(target, now, {who = 'w1', left = sent.at - rtt, class = 'site_rate', reply = '421 no', words = '', hint = 0,
    least = many > 0 and many / ((now - took[first]) / 1e6 + 1) or 0,
    took = took_of(many)})
end

-- ramp: lines are opened as lib/learnt.lua has it
local most = lines
if model.ramp then lines = 1 end
local borne, grown = 0, start
local function open_lines()
  if lines >= most or borne < model.ramp * (2 + lines) / 3 and now - grown < 1e6 then return end
  lines, borne, grown = math.min(most, lines + math.max(1, math.floor(lines / 4))), 0, now
end

local busy = 0
while now < stop do
  while flight[head] and flight[head].at <= now do
    hear(flight[head])
    if model.ramp then
      borne = borne + (flight[head].ok and 1 or 0)
      open_lines()
    end
    head = head + 1
  end
  if pace_opens(target, now) == 0 and now >= busy and #flight - head + 1 < lines then
    pace_takes(target, now)
    local ok = takes(now + rtt / 2)
    local seen = row()
    if ok then seen.taken = seen.taken + 1 else seen.refused = seen.refused + 1 end
    flight[#flight + 1] = {at = now + rtt, ok = ok}
    busy = now + 1e6 / capacity
  end
  local state, seen = pace_at(target), row()
  if state then
    seen.least, seen.most = math.min(seen.least, state.rate), math.max(seen.most, state.rate)
  else
    seen.most = 1e9
  end
  local coming = stop
  if flight[head] then coming = flight[head].at end
  if #flight - head + 1 < lines then coming = math.min(coming, math.max(busy, pace_opens(target, now), now + 1)) end
  now = math.max(now + 1, coming)
end
return cjson.encode(rows)

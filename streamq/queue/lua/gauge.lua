-- gauge: what limits lanes now, by the same words by which mails are admitted. Takes no slot.
-- needs: base route slots pace limit
-- KEYS: {streamq}: absent clock limit limits meta pauses stream throttled
-- ARGV: now
-- EACH: lane
-- RETURNS: now, then per lane: way (that it goes now; '' while all are closed), then the windows of the queue, of its way
--   (of the first where all are closed), of its way and site, as '<W> <TAT> <T> <τ>,…' in µs; a pace that replies
--   taught is the last of them
-- EVENTS: none

local now = clock(ARGV[1])
local out = {text(now)}
local said = {}

local function windows_said(target)
  if not said[target] then
    local texts = {}
    for at, window in ipairs(windows_at(target, now)) do
      texts[at] = table.concat({text(window.w), text(window.tat), string.format('%.17g', window.t), text(window.tau)}, ' ')
    end
    local state = pace_at(target)
    if state then
      local tat = math.max(state.tat, state.till + PACE.tau)
      texts[#texts + 1] = table.concat({text(PACE.w), text(tat), string.format('%.17g', pace_step(state)), text(PACE.tau)}, ' ')
    end
    said[target] = table.concat(texts, ',')
  end
  return said[target]
end

for lane in each() do
  local way = open_way(lane, now)
  local at = way or route_of(lane)
  out[#out + 1] = way or ''
  for _, target in ipairs({'*', at, at .. '|' .. site_in(lane)}) do out[#out + 1] = windows_said(target) end
end
return out

-- shut: whether a site's mails park.
-- needs: base index limit

-- µs at which the lane may be visited; nil where it is open: admission takes its slots.
local function shut_until(lane, p, now)
  local queue = queue_of(lane)
  local slot, scope = next_slot(lane, now)
  if queue.urgency and queue.urgency <= p then return math.max(slot, queue.visit, now) end
  return slot > now and not (scope == 'queue' or scope == 'route') and slot or nil
end

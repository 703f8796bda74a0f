-- heads: of each priority its first entry, the first that waits to be read, and how many ever came. Ids alone: what lies
-- at the head may be megabytes. Changes nothing.
-- needs: base lease index classify
-- KEYS: {streamq}: due held lane meta parked schedule stream turns
-- ARGV: none
-- RETURNS: per priority: its first entry, then the first behind what was read, each '' for none; the second also where
--   that one stands in an index (a group that was made again); then how many entries were ever added, '' before Redis 7
-- EVENTS: none

local out = {}
for p = 0, #NAMES - 1 do
  local stream = K.stream(NAMES[p + 1])
  local last = delivered(stream) or ''
  local first, unread = behind(stream, '', '+', 1)[1], last ~= '' and behind(stream, last, '+', 1)[1]
  local waits = unread and classify(p .. unread[1], stream, unread[1], last) == 'waiting'
  out[#out + 1] = first and p .. first[1] or ''
  out[#out + 1] = waits and p .. unread[1] or ''
  local there = redis.call('EXISTS', stream) == 1
  local added = there and info(redis.call('XINFO', 'STREAM', stream))['entries-added']
  out[#out + 1] = added and text(added) or ''
end
return out

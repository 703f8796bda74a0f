-- trim: the oldest dead letters go, where they are too old, or all together too many bytes. In bounded steps.
-- needs: base letter
-- KEYS: {streamq}: absent clock counts dead meta stream
-- ARGV: now age most
--   age     ms that a letter is kept            most    bytes that all of them may have
-- RETURNS: how many went, 1 where more may have to go
-- EVENTS: none

local oldest = math.floor(clock(ARGV[1]) / 1000) - tonumber(ARGV[2])
local most = tonumber(ARGV[3])
local LETTERS, BYTES = 100, 4000000 -- of one call: each letter is read, to know what it takes
local gone, read = 0, 0
local bytes = tonumber(redis.call('HGET', K.counts, 'dead_bytes') or '0')

while gone < LETTERS and read < BYTES do
  local row = redis.call('XRANGE', K.dead, '-', '+', 'COUNT', 1)[1]
  if not row then
    redis.call('HDEL', K.counts, 'dead_bytes') -- whatever somebody deleted past us is forgotten
    return {gone, 0}
  end
  if time_of(row[1]) >= oldest and bytes <= most then return {gone, 0} end
  local size = discard(row[1], row[2])
  gone, read, bytes = gone + 1, read + size, bytes - size
end
return {gone, 1}

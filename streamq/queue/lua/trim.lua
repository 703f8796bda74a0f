-- trim: the oldest dead letters go, where they are too old, or all together too many bytes. In bounded steps. (Whoever buries
-- makes room, too: lib/dead.)
-- needs: base letter
-- KEYS: {streamq}: absent clock counts dead meta stream
-- ARGV: now age most
--   age     ms that a letter is kept            most    bytes that all of them may have
-- RETURNS: how many went, 1 where more may have to go
-- EVENTS: none

local oldest = math.floor(clock(ARGV[1]) / 1000) - tonumber(ARGV[2])
local most = tonumber(ARGV[3])
local gone, read = 0, 0
local bytes = all_bytes()

while gone < GONE_MOST and read < READ_MOST do
  local row = oldest_letter()
  if not row then return {gone, 0} end
  if time_of(row[1]) >= oldest and bytes <= most then return {gone, 0} end
  local size = discard(row[1], row[2])
  gone, read, bytes = gone + 1, read + size, bytes - size
end
return {gone, 1}

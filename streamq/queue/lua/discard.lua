-- discard: dead letters go for good.
-- needs: base letter
-- KEYS: {streamq}: absent counts dead meta stream
-- ARGV: most
--   most     bytes after which it stops: each letter is read, to know what it takes
-- EACH: letter
--   letter   id in the dead letters' stream
-- RETURNS: how many rows were done, how many letters went
-- EVENTS: none

local most = tonumber(ARGV[1])
redis.call('DEL', K.absent)
local done, gone, read = 0, 0, 0
for letter in each() do
  if read >= most then break end
  local found = letter_at(letter)
  if found then
    read = read + discard(letter, found[2])
    gone = gone + 1
  end
  done = done + 1
end
return {done, gone}

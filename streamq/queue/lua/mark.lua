-- mark: these mails' dots go out now. One field per connection, overwritten by its next mail: if their consumer
-- dies, what its dots name is ambiguous.
-- needs: base lease plain
-- KEYS: {streamq}: absent dots meta notes stream
-- ARGV: consumer
-- EACH: connection entry token before
--   before   comma list of the connection's mails before this one whose 250 is not settled: still past their dots
--   connection  '<route>.<a number that this consumer gave it>'
-- RETURNS: a letter for each row, in one text: o ok, l lost (somebody else's lease), s sent (a 250 came late: do not send
--   it again)
-- EVENTS: none

local consumer = ARGV[1]
redis.call('DEL', K.absent)
local letters, dots = {}, {}
ask_holds(consumer, 2)
local notes = said_of_all('HMGET', K.notes, 2)
for at = HEAD + 1, #ARGV, EACH do
  local entry, earlier = ARGV[at + 1], ARGV[at + 3]
  local _, id, stream = split(entry)
  if not owns(stream, id, consumer, ARGV[at + 2]) then
    letters[#letters + 1] = 'l'
  elseif notes[entry] and cjson.decode(notes[entry]).sent then
    letters[#letters + 1] = 's'
  else
    letters[#letters + 1] = 'o'
    dots[#dots + 1] = consumer .. '/' .. ARGV[at]
    dots[#dots + 1] = earlier ~= '' and earlier .. ',' .. entry or entry
  end
end
if #dots > 0 then redis.call('HSET', K.dots, unpack(dots)) end
return table.concat(letters)

-- seek: a live mail by its producer's id, looked for among the entries themselves: nobody has looked the id up yet.
-- needs: base
-- KEYS: {streamq}: meta stream
-- ARGV: p start many tenant id
--   p          digit of the priority                start   id behind which to begin, '' for the stream's head
--   many       entries to visit, at most 100        tenant  '-' for none, else '=' and its name
-- RETURNS: reached (id to go on from, '' at the stream's end), entry ('' where none of these is it)
-- EVENTS: none

local p, start, many, tenant, id = tonumber(ARGV[1]), ARGV[2], math.min(tonumber(ARGV[3]), 100), ARGV[4], ARGV[5]

local found = behind(STREAMS[p + 1], start, '+', many)
for _, row in ipairs(found) do
  local fields = info(row[2])
  if fields['id'] == id and (fields['tenant'] or '') == tenant:sub(2) then return {'', ARGV[1] .. row[1]} end
end
return {#found == many and found[many][1] or '', ''}

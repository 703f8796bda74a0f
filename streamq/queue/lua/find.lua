-- find: the entry that owns a producer's id.
-- needs: base seen
-- KEYS: {streamq}: absent clock meta seen stream
-- ARGV: now window
-- EACH: tenant id
--   tenant   '-' for none, else '=' and its name
-- RETURNS: per row: entry, or '' (never seen, too long ago, or its mail ended unsent)
-- EVENTS: none

local now, window = clock(ARGV[1]), tonumber(ARGV[2])
local out = {}
for tenant, id in each() do
  out[#out + 1] = seen(digest_of(tenant:sub(2), id), now, window) or ''
end
return out

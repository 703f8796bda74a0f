-- resettle: after the server lost its last second, mails that had ended are there again: they end again, from
-- whatever state, under their old event's id. The caller has compared the contents.
-- A child that was sent and is not there may be made again, under another entry, where its parent is there again: what
-- it is known by (`seen`) is noted from here on, and that other one a duplicate.
-- needs: base lease index child notes seen event letter dead report
-- KEYS: {streamq}: absent bodies body clock collapse counts dead due events expiry held holds lane meta notes parked
--   reports schedule seen shared stream turns
-- ARGV: now window
-- EACH: entry id kind tail why event_id seen
--   why    '' for a mail that was sent, else JSON {reason, class, reply, report} of its dead letter
--   event_id  that of the event when it ended first      seen  '' or, of a child that was sent, 10 bytes digest
-- RETURNS: how many ended again
-- EVENTS: the rows' kinds

local now, window = clock(ARGV[1]), tonumber(ARGV[2])
local again = 0
for entry, producer, kind, tail, why, event_id, digest in each() do
  local _, id, stream = split(entry)
  if exists(stream, id) then
    again = again + 1
    displace(entry, place(entry))
    if why == '' then
      local fields = known_of(fields_of(stream, id), entry)
      if (fields['id'] or '') ~= '' then -- sent: a copy of it that is there, too, is none
        see(digest_of(fields['tenant'], fields['id']), UNHASHED .. pack_entry(entry), now, window)
      end
      remove(entry, stream, id, fields.parent)
    else
      local known = cjson.decode(why)
      bury(entry, stream, id, known, now, window)
      tail = with(tail, tell(known.report, now))
    end
    count('resettled', 1)
    count('total:' .. kind:match('[^.]*$'), 1)
    event(kind, producer, entry, event_id, now, tail)
  elseif digest ~= '' then
    see(digest, UNHASHED .. pack_entry(entry), now, window)
  end
end
return again

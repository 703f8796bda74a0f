-- learnt: what the server of a route takes, as it showed over all workers: connections at once, and mails on each. In
-- the field LEARNT of `grants:<route>`, since only grant.lua asks, and asks for all of that hash at each call.
-- UNKNOWN  `cap`, the connections that workers may have together, begins with one and grows by a quarter, one at
--          least, whenever as many stand, or all that the one that asks may have and others have no use for the rest: a
--          server that takes 5 of 20 refuses the sixth, one that takes 20 has them after twelve rounds. But first
--          they have brought `ramp` mails (the policy's; a third more for each beyond one), or A_ROUND is over: who
--          begins with all of them at once is far above the server's pace before the first reply says that it is too
--          much, with as many mails under way.
-- REFUSED  The cap is what stood then; refusals within RUN belong to one run. After FIRST_TRY, doubling to LAST_TRY
--          with each run, one more is tried, once as many stand as may. Each try that is not refused makes the next one
--          sooner, down to NEXT_TRY, and twice as large, up to a quarter; workers open those one by one, and stop
--          at the first that is refused. Where all that are configured stand nothing is left to learn.
--          A server that refuses and then is down was on its way there (it stopped listening, its sessions ended one
--          by one): of the cuts of its last minute the first counts, or none if none came before.
--          Longer than LAST_TRY, and a limit that doubles would not be used within five minutes; tries closer than
--          FIRST_TRY, and a server that counts offences a minute would see three.
-- MAILS    The number that the server named by ending a session. After MAILS_FIRST, doubling to MAILS_LAST with each
--          time that it does so again, a quarter more is tried, if connections bore as many as they may.
-- WARY     It has just turned somebody away, or mail for its pace: whoever goes on knocking may be kept out, and one that is
--          closed here may not be let in there. So what stands keeps its place, and bears more mails than we would
--          ask of it otherwise, where the server has named no number.
-- needs: base pace

local LEARNT = '*' -- no consumer is called so
local LEARNT_LASTS = 3600000 -- ms without any worker
local RUN = 5000000 -- µs, all of these
local FIRST_TRY, LAST_TRY, NEXT_TRY = 60000000, 240000000, 5000000
local A_ROUND = 1000000
local OUTLIVES = 10 -- times the mails of a connection
local MAILS_FIRST, MAILS_LAST = 3600000000, 86400000000

local TIMES = {'cut', 'next', 'wait', 'soon', 'mails_cut', 'mails_next', 'mails_wait', 'grown'}

local PLAIN = {'cap', 'step', 'tried', 'before', 'first', 'mails', 'sent'}

local function quarter(number) return math.max(1, math.floor(number / 4)) end

-- cap; after a refusal cut (when), next (try), wait (before it, as it was), step, tried (one was since), soon (between
-- the last two), before (the cap, were these cuts undone), first (nothing was refused before); mails where they are
-- known, and mails_cut, mails_next, mails_wait; sent: mails that were taken since the cap grown (when)
local function learnt_from(packed)
  local known = packed and cjson.decode(packed) or {cap = 1}
  for _, name in ipairs(TIMES) do known[name] = tonumber(known[name]) end
  return known
end

local function learnt_packed(known)
  local kept = {}
  for _, name in ipairs(PLAIN) do kept[name] = known[name] end
  for _, name in ipairs(TIMES) do kept[name] = known[name] and text(known[name]) end
  return cjson.encode(kept)
end

local function refusals_forgotten(known)
  for _, name in ipairs({'cut', 'next', 'wait', 'step', 'tried', 'soon', 'before', 'first', 'grown', 'sent'}) do
    known[name] = nil
  end
end

local function cut_to(known, now, worked)
  local quiet = not known.cut or now - known.cut >= FIRST_TRY
  if quiet or not known.before then
    known.first = not known.cut
    known.before = known.first and known.cap or math.min(known.cap, worked)
  end
  if not known.cut or now - known.cut >= RUN then
    known.wait = math.min(math.max(FIRST_TRY, (known.wait or 0) * 2), LAST_TRY)
  end
  known.cap = math.min(known.cap, worked)
  known.cut, known.next, known.step, known.tried, known.soon = now, now + known.wait, 1, nil, nil
end

-- Whether what stands has borne enough for more to be tried.
local function has_borne(known, now, sent)
  if sent == 0 and known.sent == 0 and now - known.grown < A_ROUND then return false end
  local ramp = adapt() and adapt().ramp or 0
  if ramp == 0 then return true end
  known.grown, known.sent = known.grown or now, (known.sent or 0) + sent
  return known.sent >= ramp * (2 + known.cap) / 3 or now - known.grown >= A_ROUND
end

-- works: connections that stand, of all workers. lent: those that others were granted, do not have and do not want,
-- where the one that asks is short of some. refused: how many were not let in since the last word, when so many
-- `worked`. lost: the worker that tells finds the route down. sent: mails that were taken since it last told.
local function learn_connections(known, now, most, works, lent, refused, worked, lost, sent)
  if refused > 0 and worked > 0 then
    cut_to(known, now, worked)
  elseif lost and works == 0 and known.before and now - known.cut < FIRST_TRY then
    known.cap, known.before = known.before, nil
    if known.first then refusals_forgotten(known) end
  elseif works >= most then
    known.cap = math.max(known.cap, most)
    refusals_forgotten(known)
  elseif not known.cut then
    known.cap = math.max(known.cap, works)
    if has_borne(known, now, sent) and works + lent >= known.cap then
      known.cap = math.min(most, known.cap + quarter(known.cap))
      if known.grown then known.grown, known.sent = now, 0 end
    end
  elseif works >= known.cap and now >= known.next then
    if known.tried then known.wait = 0 end -- the last try was no vain one
    known.cap = known.cap + known.step
    known.soon = math.max(NEXT_TRY, math.floor((known.soon or 8 * NEXT_TRY) / 2))
    known.step, known.next = math.min(known.step * 2, quarter(known.cap)), now + known.soon
    known.tried = true
  end
  return math.min(known.cap, most)
end

-- No server of all these has refused one, and there may be more soon.
local function is_ramp(known, cap, most) return not known.cut and cap < most end

-- slowed: µs of the last refusal for its pace, or nil
local function is_wary(known, slowed, now)
  return known.cut and now - known.cut < FIRST_TRY or slowed and now - slowed < FIRST_TRY
end

-- bore: mails after which the server would take no more, 0 where it did not say so; full: connections that have had as
-- many as they may
local function learn_mails(known, now, most, bore, full)
  if bore > 0 then
    local again = known.mails_cut and now - known.mails_cut < RUN
    known.mails = math.min(known.mails or bore, bore) -- the least, of several servers behind one name
    if not again then known.mails_wait = math.min(math.max(MAILS_FIRST, (known.mails_wait or 0) * 2), MAILS_LAST) end
    known.mails_cut, known.mails_next = now, now + known.mails_wait
  elseif known.mails and full > 0 and now >= known.mails_next then
    known.mails = known.mails + quarter(known.mails)
    known.mails_next = now + MAILS_FIRST
  end
  if known.mails and known.mails >= most then
    known.mails, known.mails_cut, known.mails_next, known.mails_wait = nil, nil, nil, nil
  end
  return known.mails or most
end

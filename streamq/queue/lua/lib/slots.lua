-- slots: transactions at once to a site by one way, over all workers. Each is a lease of the mail that has it.
-- STATE    `slots:<way>|<site>`: '<consumer> <entry>' → µs until which it counts. Its worker renews it while the mail is in
--          its hand (renew.lua): what a worker had that died is free when that is over. (A number per consumer lost: a
--          call that is repeated, or a mail that is admitted twice, would leave it wrong.)
-- WAITING  A road on which none was found stands there, too, under 0: whoever leaves a slot makes it due. It looks by itself
--          when the first of those that count would end without a renewal.
-- needs: base route

local SLOT_LASTS = 4000000 -- µs
local SLOTS_LAST = 600000 -- ms: the key, when nobody touches it
local TIDIED = 16 -- seconds: in one of so many it is made to last on, and what has lapsed goes; and when it is the first

local slots = {} -- '<way>|<site>' → {many, waits, took, left, is_first}

local function slots_of(target, now)
  local state = slots[target]
  if not state then
    state = {waits = {}}
    slots[target] = state
  end
  if now and not state.many then
    state.many = redis.call('ZCOUNT', K.slots(target), '(' .. digits(now), '+inf')
    state.is_first = state.many == 0
  end
  return state
end

-- True, or the µs at which to look again. Of a mail that has one already (it is admitted again) it is free.
local function slot_free(target, most, now, consumer, entry)
  if slots_of(target, now).many < most then return true end
  local key = K.slots(target)
  if entry and tonumber(redis.call('ZSCORE', key, consumer .. ' ' .. entry) or 0) > now then return true end
  local first = redis.call('ZRANGEBYSCORE', key, '(' .. digits(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  return tonumber(first or now + SLOT_LASTS)
end

local function slot_taken(target, consumer, entry, now)
  local state = slots_of(target, now)
  state.took = true
  state.many = state.many + redis.call('ZADD', K.slots(target), digits(now + SLOT_LASTS), consumer .. ' ' .. entry)
end

-- Its road is to be told when one is left.
local function slot_waits(target, lane)
  local state, road = slots_of(target), road_of(lane)
  if state.waits[road] then return end
  state.waits[road] = true
  redis.call('ZADD', K.slots(target), 0, road)
end

-- Its transaction is over. Of one that has none, or has left it before, nothing is freed.
local function slot_left(target, consumer, entry)
  if redis.call('ZREM', K.slots(target), consumer .. ' ' .. entry) == 0 then return end
  local state = slots_of(target)
  state.left = true
  if state.many then state.many = state.many - 1 end
end

-- Once, at a script's end; true where roads are due now that waited. (Who waits is parked.)
local function keep_slots(now)
  local any = false
  for target, state in pairs(slots) do
    if state.took and (state.is_first or math.floor(now / 1000000) % TIDIED == 0) then
      redis.call('ZREMRANGEBYSCORE', K.slots(target), '(0', digits(now))
      redis.call('PEXPIRE', K.slots(target), SLOTS_LAST)
    end
    local wake = state.left and has(K.parked)
    local roads = wake and redis.call('ZRANGEBYSCORE', K.slots(target), 0, 0, 'LIMIT', 0, LANES_WOKEN) or {}
    if #roads > 0 then
      any = true
      redis.call('ZREM', K.slots(target), unpack(roads))
      for _, name in ipairs(NAMES) do
        local command = {'ZADD', K.due(name), 'XX'}
        for _, road in ipairs(roads) do
          command[#command + 1] = text(now)
          command[#command + 1] = road
        end
        redis.call(unpack(command))
      end
    end
  end
  return any
end

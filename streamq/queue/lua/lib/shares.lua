-- shares: of a lane's slots the best priority that waits there gets the most. Each lower one that waits gets one of ten,
-- so that a backlog above it that never ends does not stop it; never two in a row, so that what is urgent waits one slot
-- longer at most. (Of more than five lower ones each gets less.)
-- STATE    field `turn` of `limit:<way>|<site>`: slots that were given there while several priorities waited.
-- needs: base route

local ONE_OF = 10
local TURN_LASTS = 60000 -- ms
local turns_at = {} -- '<way>|<site>' → {many, taken}

local function turn_at(target)
  local turn = turns_at[target]
  if not turn then
    turn = {many = tonumber(redis.call('HGET', K.limit(target), 'turn') or 0)}
    turns_at[target] = turn
  end
  return turn
end

-- Which priority has the next slot. waits: digit → true, of those that wait below the best.
local function whose_turn(lane, best, waits, now)
  local way = open_way(lane, now)
  if not way then return best end
  local round = math.max(ONE_OF, 2 * (#NAMES - 1 - best))
  local at = turn_at(way .. '|' .. site_in(lane)).many % round
  local lower = best + (round + 1 - at) / 2 -- every other turn is one's, at the end of a round
  return at % 2 == 1 and waits[lower] and lower or best
end

-- A slot was given, and lower ones waited.
local function turn_taken(way, site)
  local turn = turn_at(route_of(way) .. '|' .. site)
  turn.many, turn.taken = turn.many + 1, true
end

-- Once, at a script's end.
local function keep_turns()
  for target, turn in pairs(turns_at) do
    if turn.taken then
      redis.call('HSET', K.limit(target), 'turn', text(turn.many % 1000000))
      outlast(K.limit(target), TURN_LASTS)
    end
  end
end

-- How sessions hear of what concerns them, and of the dead.

-- In how many milliseconds another session may be found dead: -1 if there is no other.
local function next_death()
  local first = call('ZRANGE', prefix .. 'sessions', 0, 1, 'WITHSCORES')
  for index = 1, #first, 2 do
    if first[index] ~= sid then
      return math.max(0, tonumber(first[index + 1]) - milliseconds())
    end
  end
  return -1
end

-- Tells a session something. Pushed, since that is fast; and numbered and kept until a beat has acknowledged it, since a push
-- can be lost.
local function tell(id, message)
  if not alive(id) then
    return
  end
  local number = call('HINCRBY', prefix .. 's:' .. id, 'told', 1)
  call('HSET', prefix .. 's:' .. id, 'x' .. number, message)
  call('PUBLISH', channels .. 'c:' .. id, number .. '\n' .. message)
end

-- The number of the last message to a session.
local function last_told(id)
  return tonumber(call('HGET', prefix .. 's:' .. id, 'told') or 0)
end

-- Every message up to this number was acknowledged, and is gone.
local function forgotten(id)
  return tonumber(call('HGET', prefix .. 's:' .. id, 'heard') or 0)
end

-- What a session was told since the message with that number, a part of it: answers the number up to which it is.
local function unheard(id, heard, into)
  local last = math.min(last_told(id), heard + 500)
  for number = heard + 1, last do
    local message = call('HGET', prefix .. 's:' .. id, 'x' .. number)
    if message then
      into[#into + 1] = number .. '\n' .. message
    end
  end
  return last
end

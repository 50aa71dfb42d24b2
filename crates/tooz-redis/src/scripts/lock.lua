-- Locks: who holds one, who is next, and the hand-over.

local function admits(holders, mode)
  for _, holder in ipairs(holders) do
    if mode == 'X' or holder.mode == 'X' then
      return false
    end
  end
  return true
end

local function holders_of(lock)
  local all, holders = call('HGETALL', prefix .. lock), {}
  for index = 1, #all, 2 do
    local mode, token, since, owner = string.match(all[index + 1], '^(%u) (%d+) (%d+) (%x+)$')
    holders[#holders + 1] = { request = all[index], mode = mode, token = token, since = since, owner = owner }
  end
  return holders
end

local function drop_holder(lock, holder)
  call('HDEL', prefix .. lock, holder.request)
  call('HDEL', prefix .. 'o:' .. holder.owner, holder.request)
  stirred[lock] = true
end

local function dequeue(lock, request)
  call('HDEL', prefix .. 'w:' .. lock, request)
  return call('ZREM', prefix .. 'q:' .. lock, request) == 1
end

-- Drops the dead, then gives what is free to the first living waiter, or to the run of shared ones at the head, and tells each of
-- them alone. Answers the holders, and whether anybody still waits.
local function hand_over(lock)
  local holders = {}
  for _, holder in ipairs(holders_of(lock)) do
    if alive(holder.owner) then
      holders[#holders + 1] = holder
    else
      drop_holder(lock, holder)
    end
  end
  while true do
    local head = call('ZRANGE', prefix .. 'q:' .. lock, 0, 0)[1]
    if not head then
      return holders, false
    end
    local mode, owner = string.match(call('HGET', prefix .. 'w:' .. lock, head) or '', '^(%u) (%x+)$')
    if not mode then
      dequeue(lock, head)
    elseif not alive(owner) then
      dequeue(lock, head)
      call('HDEL', prefix .. 'o:' .. owner, head)
    elseif admits(holders, mode) then
      -- The grant comes first: a server that is out of memory refuses it, and then the place in the queue must not be lost.
      local token = grant(lock, head, mode, owner)
      dequeue(lock, head)
      holders[#holders + 1] = { request = head, mode = mode, token = token, owner = owner }
      tell(owner, 'granted\n' .. head .. '\n' .. token)
    else
      return holders, true
    end
  end
end

-- Gives back what the request has, a grant or a place in the queue. It hands over also where there was nothing to give back: the
-- first attempt of a repeated release may have ended in between.
local function give_back(lock, request, owner)
  if call('HDEL', prefix .. lock, request) == 1 then
    stirred[lock] = true
  else
    dequeue(lock, request)
  end
  call('HDEL', prefix .. 'o:' .. owner, request)
  hand_over(lock)
end

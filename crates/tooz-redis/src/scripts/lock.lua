-- Locks: the holders of one, the next waiter, and the hand-over.

local function holder_in(record)
  local mode, token, since, owner = string.match(record, '^(%u) (%d+) (%d+) (%x+)$')
  return mode and { mode = mode, token = token, since = since, owner = owner }
end

local function drop_holder(lock, request, owner)
  call('HDEL', prefix .. lock, request)
  if owner then
    call('HDEL', prefix .. 'o:' .. owner, request)
  end
  stirred[lock] = true
end

local function dequeue(lock, request)
  call('HDEL', prefix .. 'w:' .. lock, request)
  return call('ZREM', prefix .. 'q:' .. lock, request) == 1
end

-- The hand-over goes on with the next script that sweeps, from any client.
local function leave_over(lock)
  left_over = true
  call('SADD', prefix .. 'more', lock)
  keep('more')
end

-- How the living hold it: "X", "S", or nil where it has no holder. All holders are of one mode, so that any of them tells, and a thousand
-- readers cost the same as one; the dead among them go when their sessions are buried, and at the latest here when they are all there
-- is. "unknown": so many are dead that it would take too long.
local function held_as(lock)
  local count = 1
  while work > 0 do
    local some = call('HRANDFIELD', prefix .. lock, count, 'WITHVALUES')
    if #some == 0 then
      return nil
    end
    for index = 1, #some, 2 do
      local holder = holder_in(some[index + 1])
      if holder and alive(holder.owner) then
        return holder.mode
      end
      drop_holder(lock, some[index], holder and holder.owner)
      work = work - 1
    end
    count = 16
  end
  if call('EXISTS', prefix .. lock) == 0 then
    return nil
  end
  return 'unknown'
end

-- Gives what is free to the first living waiter, or to the run of shared ones at the head, and tells each of them alone. Answers how it
-- is held then, and whether there are still waiters.
local function hand_over(lock)
  local held = held_as(lock)
  if held == 'unknown' then
    leave_over(lock)
    return held, true
  end
  while true do
    local head = call('ZRANGE', prefix .. 'q:' .. lock, 0, 0)[1]
    if not head then
      return held, false
    end
    local mode, owner = string.match(call('HGET', prefix .. 'w:' .. lock, head) or '', '^(%u) (%x+)$')
    if mode and alive(owner) and held and (held == 'X' or mode == 'X') then
      return held, true
    end
    if work <= 0 then
      leave_over(lock)
      return held, true
    end
    work = work - 1
    if not mode then
      dequeue(lock, head)
    elseif not alive(owner) then
      dequeue(lock, head)
      call('HDEL', prefix .. 'o:' .. owner, head)
    else
      -- A grant with its message is twice the work of anything else here.
      work = work - 1
      -- The grant comes first: a server that is out of memory refuses it, and then the place in the queue must not be lost.
      local token = grant(lock, head, mode, owner)
      dequeue(lock, head)
      held = mode
      tell(owner, 'granted\n' .. head .. '\n' .. token)
    end
  end
end

-- Gives back what the request has, a grant or a place in the queue. It hands over also where there was nothing to give back: the
-- first attempt of a repeated release may have ended in between. False: the owner has it, and it was not there.
local function give_back(lock, request, owner)
  local there = call('HDEL', prefix .. lock, request) == 1
  if there then
    stirred[lock] = true
  else
    there = dequeue(lock, request)
  end
  local owned = call('HDEL', prefix .. 'o:' .. owner, request) == 1
  hand_over(lock)
  return there or not owned
end

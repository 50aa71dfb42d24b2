-- The end of sessions: what they owned is handed over or leaves, by the first client that notices.

-- Frees a part of what a session that counts as dead has owned; true when nothing is left. A part at a time, so that the death of
-- somebody with ten thousand locks does not stop the server for everybody.
local function bury(id)
  lives[id] = false
  local owned = prefix .. 'o:' .. id
  call('HDEL', owned, '')
  while work > 0 do
    -- Any of them, not the first of a scan: what was freed before leaves a gap at the beginning, which a scan from there never gets over.
    local part = call('HRANDFIELD', owned, math.min(work, 20), 'WITHVALUES')
    if #part == 0 then
      return true
    end
    for index = 1, #part, 2 do
      local request, what = part[index], part[index + 1]
      work = work - 1
      if string.sub(what, 1, 2) == 'g:' then
        local group, member = string.match(what, '^g:(.-)\n(.*)$')
        if member_of(group, member) == request then
          drop_member(group, member, request, id)
        end
      else
        give_back(what, request, id)
      end
      call('HDEL', owned, request)
    end
  end
  return call('EXISTS', owned) == 0
end

-- Buries who is due, goes on with what was left over, and answers when to look again.
local function sweep()
  local now = milliseconds()
  for _, id in ipairs(call('ZRANGEBYSCORE', prefix .. 'sessions', '-inf', now, 'LIMIT', 0, 10)) do
    local left = call('PTTL', prefix .. 's:' .. id)
    if left ~= -2 then
      -- One without an end was given that by somebody else, and has one again at its next beat.
      call('ZADD', prefix .. 'sessions', now + (left < 0 and 1000 or math.max(left, 1)), id)
    elseif work > 0 and bury(id) then
      call('ZREM', prefix .. 'sessions', id)
    else
      left_over = true
    end
  end
  for _, lock in ipairs(call('SRANDMEMBER', prefix .. 'more', 4)) do
    if work > 0 then
      call('SREM', prefix .. 'more', lock)
      hand_over(lock)
    end
  end
  if call('EXISTS', prefix .. 'more') == 1 then
    left_over = true
  end
  return next_death()
end

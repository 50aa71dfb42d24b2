-- The end of sessions: what they owned is handed over or leaves, whoever notices it first.

-- Frees a part of what a session that counts as dead has owned; true when nothing is left. A part at a time, so that the death of
-- somebody with ten thousand locks does not stop the server for everybody.
local function bury(id)
  lives[id] = false
  -- Any of them, not the first of a scan: what was freed before leaves a gap at the beginning, which a scan from there never gets over.
  local part = call('HRANDFIELD', prefix .. 'o:' .. id, 200, 'WITHVALUES')
  for index = 1, #part, 2 do
    local request, what = part[index], part[index + 1]
    if string.sub(what, 1, 2) == 'g:' then
      local group, member = string.match(what, '^g:(.-)\n(.*)$')
      if member_of(group, member) == request then
        drop_member(group, member, request, id)
      end
    else
      give_back(what, request, id)
    end
    call('HDEL', prefix .. 'o:' .. id, request)
  end
  return call('EXISTS', prefix .. 'o:' .. id) == 0
end

-- Buries who is due, and answers when to look again.
local function sweep()
  local now = milliseconds()
  for _, id in ipairs(call('ZRANGEBYSCORE', prefix .. 'sessions', '-inf', now, 'LIMIT', 0, 10)) do
    local left = call('PTTL', prefix .. 's:' .. id)
    if left >= 0 then
      call('ZADD', prefix .. 'sessions', now + math.max(left, 1), id)
    elseif bury(id) then
      call('ZREM', prefix .. 'sessions', id)
    end
  end
  return next_death()
end

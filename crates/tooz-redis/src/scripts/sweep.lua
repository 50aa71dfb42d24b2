-- The end of sessions: what they owned is handed over or leaves, by the first client that notices.

-- Gives back one thing that the dead session has owned.
local function free(id, request, what)
  if string.sub(what, 1, 2) == 'g:' then
    local group, member = string.match(what, '^g:(.-)\n(.*)$')
    if group and member_of(group, member) == request then
      drop_member(group, member, request, id)
    end
  else
    give_back(what, request, id)
  end
end

-- Frees a part of what a session that counts as dead has owned; true when nothing is left. A part at a time, so that the death of
-- a session with ten thousand locks does not stop the server for all others.
local function bury(id)
  lives[id] = false
  local owned = prefix .. 'o:' .. id
  if call('TYPE', owned).ok ~= 'hash' then
    -- What it has owned is written down nowhere any more; each of its locks is found free by the next session that wants it.
    call('DEL', owned)
    return true
  end
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
      unless_foreign(free, id, request, what)
      call('HDEL', owned, request)
    end
  end
  return call('EXISTS', owned) == 0
end

-- How long (ms) is waited after one that can't be buried, so that it is in no other's way.
local PUT_OFF = 5000

-- Buries who is due: true when it is done, false when there is more to do. What fails is put off.
local function bury_or_put_off(id, now)
  local done, all = pcall(bury, id)
  if not done then
    call('ZADD', prefix .. 'sessions', now + PUT_OFF, id)
  elseif all then
    call('ZREM', prefix .. 'sessions', id)
  end
  return not done or all
end

-- Whether the session's own key is something else: then it is no session, and no beat will ever end it.
local function is_no_session(key)
  local what = call('TYPE', key).ok
  return what ~= 'hash' and what ~= 'none'
end

-- Buries who is due, goes on with what was left over, and answers when to look again.
local function sweep()
  local now = milliseconds()
  for _, id in ipairs(call('ZRANGEBYSCORE', prefix .. 'sessions', '-inf', now, 'LIMIT', 0, 10)) do
    local key = prefix .. 's:' .. id
    if is_no_session(key) then
      call('DEL', key)
    end
    local left = call('PTTL', key)
    if left ~= -2 then
      -- One without an end was given that by another program, and has one again at its next beat.
      call('ZADD', prefix .. 'sessions', now + (left < 0 and 1000 or math.max(left, 1)), id)
    elseif work <= 0 or not bury_or_put_off(id, now) then
      left_over = true
    end
  end
  local begun = unless_foreign(call, 'SRANDMEMBER', prefix .. 'more', 4)
  for _, lock in ipairs(begun or {}) do
    if work > 0 then
      call('SREM', prefix .. 'more', lock)
      unless_foreign(hand_over, lock)
    end
  end
  if begun and call('EXISTS', prefix .. 'more') == 1 then
    left_over = true
  end
  return next_death()
end

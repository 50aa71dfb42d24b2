-- Looks for the dead, and says when to look again: "more" for at once, "stirred" to a user that may not write and can do nothing but look.
local may_write, refused = look()
if refused then
  return refused
end
if not may_write then
  local stirred, now = '', milliseconds()
  for _, id in ipairs(call('ZRANGEBYSCORE', prefix .. 'sessions', '-inf', now, 'LIMIT', 0, 100)) do
    if not alive(id) then
      stirred = 'stirred'
    end
  end
  local due = call('ZRANGEBYSCORE', prefix .. 'sessions', '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return { 'ok', due[2] and math.max(0, tonumber(due[2]) - now) or -1, stirred }
end
local next_look = sweep()
tell_lock_watchers()
return { 'ok', next_look, over() }

-- The beginning of all scripts that only look: their user may have no right to do more.

-- Whether this user may write, and the refusal where this server has become a replica, which would show what was.
local function look()
  local foreign = foreign_layout()
  if foreign then
    return false, foreign
  end
  local tried = redis.pcall('HDEL', prefix .. 'groups', '')
  local trouble = type(tried) == 'table' and tried.err
  if not trouble then
    return true
  end
  if string.find(trouble, 'READONLY', 1, true) or string.find(call('INFO', 'replication'), 'role:slave', 1, true) then
    return false, redis.error_reply('READONLY this server is a replica by now')
  end
  return false
end

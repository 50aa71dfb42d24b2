-- Groups: each change has a version and is pushed as a difference.

-- Pushes "AFTER\nVERSION\nKIND\nLIFE\nJOIN\nMEMBER\nCAPABILITIES"; names have no control characters, and what comes last may have any.
-- LIFE is how long (ms) the member's session lives without a beat: from then on a silent death may be looked for.
local function push_change(group, kind, life, join, member, capabilities)
  local after, version = call('HGET', prefix .. 'groups', group) or '0', next_token()
  call('HSET', prefix .. 'groups', group, version)
  local change = { after, version, kind, life, join, member, capabilities }
  call('PUBLISH', channels .. 'g:' .. group, table.concat(change, '\n'))
end

local function member_of(group, member)
  local record = call('HGET', prefix .. 'g:' .. group, member)
  if record then
    return string.match(record, '^(%x+) (%x+) (.*)$')
  end
end

local function enter_member(group, kind, join, member, capabilities)
  call('HSET', prefix .. 'g:' .. group, member, join .. ' ' .. sid .. ' ' .. capabilities)
  call('HSET', prefix .. 'o:' .. sid, join, 'g:' .. group .. '\n' .. member)
  push_change(group, kind, call('PTTL', prefix .. 's:' .. sid), join, member, capabilities)
end

local function drop_member(group, member, join, owner)
  call('HDEL', prefix .. 'g:' .. group, member)
  call('HDEL', prefix .. 'o:' .. owner, join)
  push_change(group, 'left', 0, join, member, '')
end

-- The living; the dead leave on the way.
local function members_of(group)
  local all, living = call('HGETALL', prefix .. 'g:' .. group), {}
  for index = 1, #all, 2 do
    local join, owner, capabilities = string.match(all[index + 1], '^(%x+) (%x+) (.*)$')
    if alive(owner) then
      living[#living + 1] = { member = all[index], join = join, capabilities = capabilities }
    else
      drop_member(group, all[index], join, owner)
    end
  end
  return living
end

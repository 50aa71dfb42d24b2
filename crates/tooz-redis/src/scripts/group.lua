-- Groups: each change has a version and is pushed as a difference.

-- Pushes "AFTER\nVERSION\nKIND\nLIFE\nJOIN\nMEMBER\nCAPABILITIES"; names have no control characters, and what comes last may have any.
-- LIFE is how long (ms) the member's session lives without a beat: from then on a silent death may be looked for.
local function push_change(group, version, kind, life, join, member, capabilities)
  local after = call('HGET', prefix .. 'groups', group)
  -- One that was deleted by hand is not made again by what its members leave behind.
  if not after then
    return
  end
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
  -- What may be refused comes before anything is done, here and below.
  local version = next_token()
  call('HSET', prefix .. 'g:' .. group, member, join .. ' ' .. sid .. ' ' .. capabilities)
  call('HSET', prefix .. 'o:' .. sid, join, 'g:' .. group .. '\n' .. member)
  keep('g:' .. group)
  push_change(group, version, kind, call('PTTL', prefix .. 's:' .. sid), join, member, capabilities)
end

local function drop_member(group, member, join, owner)
  write_though_full()
  local version = next_token()
  call('HDEL', prefix .. 'g:' .. group, member)
  call('HDEL', prefix .. 'o:' .. owner, join)
  push_change(group, version, 'left', 0, join, member, '')
end

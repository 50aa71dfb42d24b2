-- What a grant is. `lock` is "l:NAME" or, for an election, "e:NAME".

-- Locks whose holders have changed, for those who watch them; told once at the end of the script.
local stirred = {}

local function tell_lock_watchers()
  for lock in pairs(stirred) do
    -- The locks of users have no watchers: the client that waits for one is told alone.
    if string.sub(lock, 1, 1) == 'e' then
      call('PUBLISH', channels .. lock, '')
    end
  end
end

local function grant(lock, request, mode, owner)
  local token, since = next_token(), string.format('%.0f', milliseconds())
  call('HSET', prefix .. lock, request, mode .. ' ' .. token .. ' ' .. since .. ' ' .. owner)
  keep(lock)
  call('HSET', prefix .. 'o:' .. owner, request, lock)
  stirred[lock] = true
  return token
end

-- ARGV[4] lock, ARGV[5] request. Done whether or not the session still lives, since it touches this request's grant alone; but
-- who finds out by this that the session has ended is told so.
local refused = enter()
local lock, request = ARGV[4], ARGV[5]
local answer = refused == 'lost' and 'lost' or 'ok'
local removed = redis.pcall('HDEL', prefix .. lock, request)
if type(removed) == 'table' then
  if not string.find(removed.err, 'WRONGTYPE', 1, true) then
    return removed
  end
  -- Somebody has put something else there, and with it taken the grant away.
  redis.pcall('HDEL', prefix .. 'o:' .. sid, request)
  return { answer == 'ok' and 'missing' or answer }
end
local given_back = removed == 1
if given_back then
  call('HDEL', prefix .. 'o:' .. sid, request)
  stirred[lock] = true
  if call('EXISTS', prefix .. 'q:' .. lock) == 0 then
    tell_lock_watchers()
    return { answer }
  end
end
-- Where the lock has waiters, or there was no grant to give back.
if given_back then
  hand_over(lock)
elseif not give_back(lock, request, sid) and answer == 'ok' then
  -- The session owns it, and it is not there: it was deleted, and may long be another's. A repeated release finds neither.
  answer = 'missing'
end
tell_lock_watchers()
return { answer, over() }

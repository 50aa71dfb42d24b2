-- Where the lock has waiters, or there was no grant to give back.
if given_back then
  hand_over(lock)
elseif not give_back(lock, request, sid) and answer == 'ok' then
  -- The session owns it, and it is not there: it was deleted, and may long be another's. A repeated release finds neither.
  answer = 'missing'
end
tell_lock_watchers()
return { answer, over() }

-- Where somebody waits for the lock, or there was no grant to give back.
if given_back then
  hand_over(lock)
else
  give_back(lock, request, sid)
end
tell_lock_watchers()
return { answer, over() }

-- Where somebody else has the lock or waits for it, or there was no grant to give back.
if given_back then
  hand_over(lock)
else
  give_back(lock, request, sid)
end
tell_lock_watchers()
return answer

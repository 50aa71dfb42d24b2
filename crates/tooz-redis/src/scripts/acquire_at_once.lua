-- ARGV[4] lock, ARGV[5] request, ARGV[6] mode, ARGV[7] "wait" or "try". The usual case comes first: a server makes the functions of a
-- script anew at each run, and the hand-over with all that it needs would cost more than the rest.
local refused = enter()
if refused then
  return { refused }
end
local lock, request, mode = ARGV[4], ARGV[5], ARGV[6]
if lies_idle(lock) then
  local token = grant(lock, request, mode, sid)
  tell_lock_watchers()
  return { 'granted', token }
end

-- Where somebody has the lock or waits for it. A repetition finds its own grant or place.
local holders, waited_for = hand_over(lock)
local token
for _, holder in ipairs(holders) do
  if holder.request == request then
    token = holder.token
    -- A write, so that a WAIT behind this script counts from here.
    call('HSET', prefix .. 'o:' .. sid, request, lock)
  end
end
if not token and not waited_for and admits(holders, mode) then
  token = grant(lock, request, mode, sid)
end
if not token and ARGV[7] == 'wait' and not call('ZSCORE', prefix .. 'q:' .. lock, request) then
  call('ZADD', prefix .. 'q:' .. lock, next_token(), request)
  call('HSET', prefix .. 'w:' .. lock, request, mode .. ' ' .. sid)
  call('HSET', prefix .. 'o:' .. sid, request, lock)
end
tell_lock_watchers()
if token then
  return { 'granted', token }
end
return { 'busy', next_death() }

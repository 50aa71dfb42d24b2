-- ARGV[4] lock, ARGV[5] request, ARGV[6] mode, ARGV[7] "wait" or "try". A repetition finds its own grant or place.
local refused = enter()
if refused then
  return { refused }
end
local lock, request, mode = ARGV[4], ARGV[5], ARGV[6]
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

-- ARGV[4] lock, ARGV[5] request, ARGV[6] mode, ARGV[7] "wait" or "try".
local refused = enter()
if refused then
  return { refused }
end
local lock, request, mode = ARGV[4], ARGV[5], ARGV[6]
-- A repetition finds its own grant or place, also on a server that is full.
if call('HEXISTS', prefix .. lock, request) == 1 or call('HEXISTS', prefix .. 'w:' .. lock, request) == 1 then
  write_though_full()
end
local held, waited_for = hand_over(lock)
local own = call('HGET', prefix .. lock, request)
local token = own and (holder_in(own) or {}).token
if token then
  -- A write, so that a WAIT behind this script counts from here.
  call('HSET', prefix .. 'o:' .. sid, request, lock)
elseif held == 'unknown' and ARGV[7] == 'try' then
  return { 'again' }
elseif not waited_for and (not held or (held == 'S' and mode == 'S')) then
  token = grant(lock, request, mode, sid)
elseif ARGV[7] == 'wait' and not call('ZSCORE', prefix .. 'q:' .. lock, request) then
  call('ZADD', prefix .. 'q:' .. lock, next_token(), request)
  call('HSET', prefix .. 'w:' .. lock, request, mode .. ' ' .. sid)
  call('HSET', prefix .. 'o:' .. sid, request, lock)
  keep('q:' .. lock)
  keep('w:' .. lock)
end
tell_lock_watchers()
if token then
  return { 'granted', token, over() }
end
return { 'busy', next_death(), over() }

-- ARGV[4] timeout (ms), ARGV[5] member, ARGV[6] the layout that the session speaks. Begins the session.
local foreign = foreign_layout()
if foreign then
  return foreign
end
call('HSET', prefix .. 's:' .. sid, 'member', ARGV[5], 'epoch', epoch)
call('PEXPIRE', prefix .. 's:' .. sid, ARGV[4])
call('SET', prefix .. 'layout', ARGV[6], 'NX')
call('HSET', prefix .. 'o:' .. sid, '', '')
keep('o:' .. sid)
call('ZADD', prefix .. 'sessions', milliseconds() + ARGV[4], sid)
keep('sessions')
local swept, next_look = pcall(sweep)
tell_lock_watchers()
return { 'ok', swept and next_look or -1, over() }

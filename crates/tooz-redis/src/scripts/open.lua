-- ARGV[4] timeout (ms), ARGV[5] member. Begins the session.
call('HSET', prefix .. 's:' .. sid, 'member', ARGV[5], 'epoch', epoch)
call('PEXPIRE', prefix .. 's:' .. sid, ARGV[4])
call('ZADD', prefix .. 'sessions', milliseconds() + ARGV[4], sid)
local next_look = sweep()
tell_lock_watchers()
return { 'ok', next_look }

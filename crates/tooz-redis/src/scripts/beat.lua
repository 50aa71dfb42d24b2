-- ARGV[4] timeout (ms), then what `look_after` reads. One heartbeat. Nothing that concerns others can make it fail.
local refused = enter()
if refused then
  return { refused }
end
call('PEXPIRE', prefix .. 's:' .. sid, ARGV[4])
unless_foreign(call, 'ZADD', prefix .. 'sessions', milliseconds() + ARGV[4], sid)
keep('sessions')
if call('PEXPIRE', prefix .. 'o:' .. sid, KEPT) == 0 then
  call('HSET', prefix .. 'o:' .. sid, '', '')
  call('PEXPIRE', prefix .. 'o:' .. sid, KEPT)
end
local answer = { 'ok', -1, epoch, 0, '' }
local swept, next_look = pcall(sweep)
answer[2] = swept and next_look or -1
answer[4] = look_after(5, answer)
answer[5] = over()
return answer

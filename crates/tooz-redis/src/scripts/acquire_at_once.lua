-- The usual case before all else, without a function of all that follows: a server makes those anew at each run. A lock without a holder and
-- without a waiter, the dead included, is given to a session that lives, on its last connection; anything else is left to what follows, and
-- so far nothing is written. What is written here is what `grant` writes.
-- ARGV[4] lock, ARGV[5] request, ARGV[6] mode, ARGV[7] "wait" or "try".
do
  local call, prefix, sid, lock = redis.call, KEYS[1], ARGV[2], ARGV[4]
  local holders = prefix .. lock
  if call('HGET', prefix .. 's:' .. sid, 'epoch') == ARGV[3] and call('EXISTS', holders, prefix .. 'q:' .. lock) == 0 then
    local time, last = call('TIME'), call('GET', prefix .. 'fence')
    local part = string.format('%06d', time[2])
    local token = time[1] .. part
    -- A fence that the clock has not passed, or that is no number, is left to `next_token`.
    if not last or (tonumber(last) or math.huge) < tonumber(token) then
      call('SET', prefix .. 'fence', token)
      call('HSET', holders, ARGV[5], ARGV[6] .. ' ' .. token .. ' ' .. time[1] .. string.sub(part, 1, 3) .. ' ' .. sid)
      call('PEXPIRE', holders, '5184000000')
      call('HSET', prefix .. 'o:' .. sid, ARGV[5], lock)
      if string.sub(lock, 1, 1) == 'e' then
        call('PUBLISH', ARGV[1] .. lock, '')
      end
      return { 'granted', token }
    end
  end
end

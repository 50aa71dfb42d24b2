-- The usual case before all else, as for `acquire`: the session lives, none waits, and the grant is there. The session is counted twice, so
-- that a queue alone is none. ARGV[4] lock, ARGV[5] request.
do
  local call, prefix, lock = redis.call, KEYS[1], ARGV[4]
  local session = prefix .. 's:' .. ARGV[2]
  if call('EXISTS', session, session, prefix .. 'q:' .. lock) == 2 and redis.pcall('HDEL', prefix .. lock, ARGV[5]) == 1 then
    call('HDEL', prefix .. 'o:' .. ARGV[2], ARGV[5])
    if string.sub(lock, 1, 1) == 'e' then
      call('PUBLISH', ARGV[1] .. lock, '')
    end
    return { 'ok' }
  end
end

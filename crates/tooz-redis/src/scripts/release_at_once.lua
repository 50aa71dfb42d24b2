-- ARGV[4] lock, ARGV[5] request. Done whether or not the session still lives, since it touches this request's grant alone; but
-- who finds out by this that the session has ended is told so. The usual case comes first, as for `acquire`.
local refused = enter()
local lock, request = ARGV[4], ARGV[5]
local answer = refused == 'lost' and 'lost' or 'ok'
local given_back = call('HDEL', prefix .. lock, request) == 1
if given_back then
  call('HDEL', prefix .. 'o:' .. sid, request)
  stirred[lock] = true
  if call('EXISTS', prefix .. 'q:' .. lock) == 0 then
    tell_lock_watchers()
    return { answer }
  end
end

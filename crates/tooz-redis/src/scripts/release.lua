-- ARGV[4] lock, ARGV[5] request. Done whether or not the session still lives, since it touches this request's grant alone; but
-- who finds out by this that the session has ended is told so.
local refused = enter()
give_back(ARGV[4], ARGV[5], sid)
tell_lock_watchers()
return { refused == 'lost' and 'lost' or 'ok' }

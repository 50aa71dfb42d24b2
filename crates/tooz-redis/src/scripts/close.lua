-- Hands over what the session owns, then ends it. "more": ask again.
if bury(sid) then
  call('DEL', prefix .. 's:' .. sid)
  call('ZREM', prefix .. 'sessions', sid)
  tell_lock_watchers()
  return { 'ok', over() }
end
tell_lock_watchers()
return { 'more' }

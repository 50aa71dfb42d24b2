-- ARGV[4] lock, ARGV[5] token. Takes away the grant with that token, and no other.
for _, holder in ipairs(holders_of(ARGV[4])) do
  if holder.token == ARGV[5] and alive(holder.owner) then
    drop_holder(ARGV[4], holder)
    -- The holder is told before the next one is.
    tell(holder.owner, 'broken\n' .. holder.request)
    hand_over(ARGV[4])
    tell_lock_watchers()
    return { 'ok' }
  end
end
return { 'missing' }

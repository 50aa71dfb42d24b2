-- ARGV[4] lock, ARGV[5] token, ARGV[6] from where on to look for it, "0" first. Takes away the grant with that token, and no other.
-- "more": it is not among these, look on from there.
local foreign = foreign_layout()
if foreign then
  return foreign
end
local page = call('HSCAN', prefix .. ARGV[4], ARGV[6], 'COUNT', 500)
for index = 1, #page[2], 2 do
  local request, holder = page[2][index], holder_in(page[2][index + 1])
  if holder and holder.token == ARGV[5] and alive(holder.owner) then
    drop_holder(ARGV[4], request, holder.owner)
    -- The holder is told before the next one is.
    tell(holder.owner, 'broken\n' .. request)
    hand_over(ARGV[4])
    tell_lock_watchers()
    return { 'ok', over() }
  end
end
return { page[1] == '0' and 'missing' or 'more', page[1] }

-- ARGV[4] group, ARGV[5] member, ARGV[6] join. Nothing to end is fine; but a member that finds out by this that its session
-- has ended is told so.
local refused = enter()
unless_foreign(function()
  local there, owner = member_of(ARGV[4], ARGV[5])
  if there == ARGV[6] then
    drop_member(ARGV[4], ARGV[5], there, owner)
  end
end)
return { refused == 'lost' and 'lost' or 'ok' }

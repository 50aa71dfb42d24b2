-- ARGV[4] group, ARGV[5] member, ARGV[6] join, ARGV[7] capabilities.
local refused = enter()
if refused then
  return { refused }
end
local there, owner = member_of(ARGV[4], ARGV[5])
if there ~= ARGV[6] or owner ~= sid or call('HEXISTS', prefix .. 'groups', ARGV[4]) == 0 then
  return { 'not member' }
end
enter_member(ARGV[4], 'updated', there, ARGV[5], ARGV[7])
return { 'ok' }

-- ARGV[4] group.
local foreign = foreign_layout()
if foreign then
  return foreign
end
if call('HSETNX', prefix .. 'groups', ARGV[4], next_token()) == 0 then
  return { 'exists' }
end
return { 'ok' }

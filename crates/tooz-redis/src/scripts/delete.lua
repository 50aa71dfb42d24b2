-- ARGV[4] group. Only without living members.
local group = ARGV[4]
if call('HEXISTS', prefix .. 'groups', group) == 0 then
  return { 'no group' }
end
local living = #members_of(group)
if living > 0 then
  return { 'not empty', living }
end
call('HDEL', prefix .. 'groups', group)
call('DEL', prefix .. 'g:' .. group)
call('PUBLISH', channels .. 'g:' .. group, 'gone')
return { 'ok' }

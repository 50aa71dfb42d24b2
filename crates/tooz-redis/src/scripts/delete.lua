-- ARGV[4] group. Only without living members. "again": those looked at are dead, and there are more.
local foreign = foreign_layout()
if foreign then
  return foreign
end
local group = ARGV[4]
if call('HEXISTS', prefix .. 'groups', group) == 0 then
  return { 'no group' }
end
local some = call('HRANDFIELD', prefix .. 'g:' .. group, 30, 'WITHVALUES')
for index = 1, #some, 2 do
  local join, owner = string.match(some[index + 1], '^(%x+) (%x+) ')
  if owner and alive(owner) then
    return { 'not empty', call('HLEN', prefix .. 'g:' .. group) }
  end
  drop_member(group, some[index], join or '', owner or '')
end
if call('EXISTS', prefix .. 'g:' .. group) == 1 then
  return { 'again' }
end
call('HDEL', prefix .. 'groups', group)
call('PUBLISH', channels .. 'g:' .. group, 'gone')
return { 'ok' }

-- ARGV[4] group, ARGV[5] member, ARGV[6] join, ARGV[7] capabilities, ARGV[8] whose entry it may replace: "nobody", "anybody" or "own".
local refused = enter()
if refused then
  return { refused }
end
local group, member, join, capabilities, replace = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
if call('HEXISTS', prefix .. 'groups', group) == 0 then
  return { 'no group' }
end
local there, owner = member_of(group, member)
if there then
  if there == join then
    return { 'ok' }
  end
  if alive(owner) then
    -- The first half of an id is the coordinator's, the second counts: only an earlier entry is one's own to replace.
    local own = replace == 'own' and there:sub(1, 16) == join:sub(1, 16) and there < join
    if replace ~= 'anybody' and not own then
      return { 'namesake', call('PTTL', prefix .. 's:' .. owner) }
    end
    tell(owner, 'ousted\n' .. there .. '\n' .. group)
  end
  drop_member(group, member, there, owner)
end
enter_member(group, 'joined', join, member, capabilities)
return { 'ok' }

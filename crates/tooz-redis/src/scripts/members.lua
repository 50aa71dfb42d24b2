-- ARGV[4] group. The living with their capabilities, in one request.
local group = ARGV[4]
if call('HEXISTS', prefix .. 'groups', group) == 0 then
  return { 'no group' }
end
local living = members_of(group)
local answer = { 'ok', call('HGET', prefix .. 'groups', group) }
for _, entry in ipairs(living) do
  answer[#answer + 1] = entry.member
  answer[#answer + 1] = entry.join
  answer[#answer + 1] = entry.capabilities
end
return answer

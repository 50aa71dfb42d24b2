-- The names of all groups.
local answer = { 'ok' }
for _, group in ipairs(call('HKEYS', prefix .. 'groups')) do
  answer[#answer + 1] = group
end
return answer

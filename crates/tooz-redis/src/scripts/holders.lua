-- ARGV[4] lock. Changes nothing: whoever looks may have no right to write.
local answer = { 'ok' }
for _, holder in ipairs(holders_of(ARGV[4])) do
  local member = call('HGET', prefix .. 's:' .. holder.owner, 'member')
  if member then
    answer[#answer + 1] = member
    answer[#answer + 1] = holder.mode
    answer[#answer + 1] = holder.token
    answer[#answer + 1] = holder.since
  end
end
return answer

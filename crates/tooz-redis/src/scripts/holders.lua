-- ARGV[4] lock, ARGV[5] from where on, "0" first. A part of them, and from where to go on. Changes nothing: a client that looks may have no
-- right to write.
local _, refused = look()
if refused then
  return refused
end
local page = call('HSCAN', prefix .. ARGV[4], ARGV[5], 'COUNT', 500)
local answer = { 'ok', page[1] }
for index = 1, #page[2], 2 do
  local holder = holder_in(page[2][index + 1])
  local member = holder and call('HGET', prefix .. 's:' .. holder.owner, 'member')
  if member then
    answer[#answer + 1] = member
    answer[#answer + 1] = holder.mode
    answer[#answer + 1] = holder.token
    answer[#answer + 1] = holder.since
  end
end
return answer

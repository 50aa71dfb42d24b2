-- ARGV[4] from where on, "0" first. A part of the names of all groups, and from where to go on.
local _, refused = look()
if refused then
  return refused
end
local page = call('HSCAN', prefix .. 'groups', ARGV[4], 'COUNT', 500)
local answer = { 'ok', page[1] }
for index = 1, #page[2], 2 do
  answer[#answer + 1] = page[2][index]
end
return answer

-- ARGV[4] from where on, "0" first. A part of the ids of all living sessions, and from where to go on.
local _, refused = look()
if refused then
  return refused
end
local page = call('ZSCAN', prefix .. 'sessions', ARGV[4], 'COUNT', 300)
local answer = { 'ok', page[1] }
for index = 1, #page[2], 2 do
  if alive(page[2][index]) then
    answer[#answer + 1] = page[2][index]
  end
end
return answer

-- What the session owns.
local refused = enter()
if refused then
  return { refused }
end
local answer = { 'ok' }
for _, text in ipairs(call('HGETALL', prefix .. 'o:' .. sid)) do
  answer[#answer + 1] = text
end
return answer

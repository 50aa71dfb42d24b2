-- ARGV[4] and on: what `look_after` reads. For what does not fit into a beat; it prolongs nothing.
local refused = enter()
if refused then
  return { refused }
end
write_though_full()
local answer = { 'ok', -1, epoch, 0, '' }
answer[4] = look_after(4, answer)
answer[5] = over()
return answer

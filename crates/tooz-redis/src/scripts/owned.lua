-- ARGV[4] from where on, "0" first. A part of what the session owns, and from where to go on, in fours: request, lock, "held" or "waits", ""
-- of each grant and each place in a queue; join, "g:" and the group, member, capabilities of each membership.
local refused = enter()
if refused then
  return { refused }
end
local page = call('HSCAN', prefix .. 'o:' .. sid, ARGV[4], 'COUNT', 50)
local owned, answer = page[2], { 'ok', page[1] }
local function tell_of(request, what, how, more)
  for _, text in ipairs({ request, what, how, more }) do
    answer[#answer + 1] = text
  end
end
for index = 1, #owned, 2 do
  local request, what = owned[index], owned[index + 1]
  local group, member = string.match(what, '^g:(.-)\n(.*)$')
  if request == '' then
    -- It stands for nothing.
  elseif not group then
    tell_of(request, what, unless_foreign(call, 'HEXISTS', prefix .. what, request) == 1 and 'held' or 'waits', '')
  else
    unless_foreign(function()
      local there, _, capabilities = member_of(group, member)
      if there == request then
        tell_of(request, 'g:' .. group, member, capabilities)
      end
    end)
  end
end
return answer

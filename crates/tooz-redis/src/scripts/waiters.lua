-- ARGV[4] lock, ARGV[5] the ticket behind which to begin, "-inf" first. A part of the queue in its order, and from where to go on: member,
-- mode and ticket of each living one. Tickets are moments in microseconds, except where the clock was set back: "" then.
local _, refused = look()
if refused then
  return refused
end
local lock, from = ARGV[4], ARGV[5]
if from ~= '-inf' then
  from = '(' .. from
end
local page = call('ZRANGEBYSCORE', prefix .. 'q:' .. lock, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 200)
local answer = { 'ok', #page == 400 and page[400] or '0' }
for index = 1, #page, 2 do
  local mode, owner = string.match(call('HGET', prefix .. 'w:' .. lock, page[index]) or '', '^(%u) (%x+)$')
  local member = owner and call('HGET', prefix .. 's:' .. owner, 'member')
  if member then
    local ticket = tonumber(page[index + 1])
    answer[#answer + 1] = member
    answer[#answer + 1] = mode
    answer[#answer + 1] = ticket <= microseconds() and string.format('%.0f', ticket) or ''
  end
end
return answer

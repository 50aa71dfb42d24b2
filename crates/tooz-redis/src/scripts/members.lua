-- ARGV[4] group, ARGV[5] from where on, "0" first. The living with their capabilities: as a rule all in one request, else a part of them
-- and from where to go on. The dead are cleared away on the way by those who may; the version is that behind it.
local may_write, refused = look()
if refused then
  return refused
end
local group = ARGV[4]
if call('HEXISTS', prefix .. 'groups', group) == 0 then
  return { 'no group' }
end
-- As many as fit into half a million bytes, for a server cuts a connection for which it has to keep too much. How long the values of a
-- page are is known only with them, so that each page has a few: with the longest that are allowed, half a million bytes more.
local all, place, bytes = {}, ARGV[5], 0
repeat
  local page = call('HSCAN', prefix .. 'g:' .. group, place, 'COUNT', 8)
  place = page[1]
  for _, text in ipairs(page[2]) do
    all[#all + 1] = text
    bytes = bytes + #text
  end
until place == '0' or #all >= 400 or bytes > 500000
local answer = { 'ok', '', place }
-- Whether all owners of a hundred live is one question; only where not, each is asked for.
for first = 1, #all, 200 do
  local last, owners = math.min(first + 199, #all), {}
  for index = first, last, 2 do
    owners[#owners + 1] = prefix .. 's:' .. (string.match(all[index + 1], '^%x+ (%x+) ') or '')
  end
  local all_live = call('EXISTS', unpack(owners)) == #owners
  for index = first, last, 2 do
    local join, owner = nil, nil
    if not all_live then
      join, owner = string.match(all[index + 1], '^(%x+) (%x+) ')
    end
    if all_live or (owner and alive(owner)) then
      answer[#answer + 1] = all[index]
      answer[#answer + 1] = all[index + 1]
    elseif may_write and join and work > 0 then
      work = work - 3
      drop_member(group, all[index], join, owner)
    end
  end
end
answer[2] = call('HGET', prefix .. 'groups', group)
return answer

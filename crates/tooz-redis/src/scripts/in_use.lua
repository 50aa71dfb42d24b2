-- ARGV[4] and on, in pairs: a session, and from where on in what it owns, "0" first. The locks that they hold or wait for. Answers how many
-- pairs are left to ask about, these pairs, then the locks.
local _, refused = look()
if refused then
  return refused
end
local steps, found, answer = 400, {}, { 'ok', 0 }
local function leave(id, place)
  answer[2] = answer[2] + 1
  answer[#answer + 1] = id
  answer[#answer + 1] = place
end
for pair = 4, #ARGV, 2 do
  local id, place = ARGV[pair], ARGV[pair + 1]
  if steps <= 0 then
    leave(id, place)
  elseif alive(id) then
    local page = unless_foreign(call, 'HSCAN', prefix .. 'o:' .. id, place, 'COUNT', 100) or { '0', {} }
    steps = steps - 1
    for index = 1, #page[2], 2 do
      local request, lock = page[2][index], page[2][index + 1]
      steps = steps - 1
      if request ~= '' and string.sub(lock, 1, 2) ~= 'g:' and not found[lock] then
        -- What was deleted by hand, or forgotten in a fail-over, is not in use.
        found[lock] = unless_foreign(call, 'HEXISTS', prefix .. lock, request) == 1
          or unless_foreign(call, 'HEXISTS', prefix .. 'w:' .. lock, request) == 1
      end
    end
    if page[1] ~= '0' then
      leave(id, page[1])
    end
  end
end
for lock, is_in_use in pairs(found) do
  if is_in_use then
    answer[#answer + 1] = lock
  end
end
return answer

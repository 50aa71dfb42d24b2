-- ARGV[4] timeout (ms), ARGV[5] the last message heard, then triples: "held" or "waiting", lock, request. One heartbeat. It brings
-- what was missed, and says which of those requests have something else here than they think: nothing at all, where somebody has
-- deleted or evicted a key, or what they still wait for.
local refused = enter()
if refused then
  return { refused }
end
call('PEXPIRE', prefix .. 's:' .. sid, ARGV[4])
call('ZADD', prefix .. 'sessions', milliseconds() + ARGV[4], sid)
local heard = tonumber(ARGV[5])
local known = forgotten(sid)
if known < heard then
  for number = known + 1, heard do
    call('HDEL', prefix .. 's:' .. sid, 'x' .. number)
  end
  call('HSET', prefix .. 's:' .. sid, 'heard', heard)
end
local mistaken = {}
for index = 6, #ARGV, 3 do
  local lock, request = ARGV[index + 1], ARGV[index + 2]
  local is_as_thought
  if ARGV[index] == 'waiting' then
    -- What is handed over just now is among the news of this very answer.
    is_as_thought = call('ZSCORE', prefix .. 'q:' .. lock, request)
    hand_over(lock)
  else
    is_as_thought = call('HEXISTS', prefix .. lock, request) == 1
  end
  if not is_as_thought then
    mistaken[#mistaken + 1] = request
  end
end
local answer = { 'ok', sweep(), epoch, #mistaken }
for _, request in ipairs(mistaken) do
  answer[#answer + 1] = request
end
tell_lock_watchers()
return unheard(sid, heard, answer)

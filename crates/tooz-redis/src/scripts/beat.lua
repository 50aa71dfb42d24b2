-- ARGV[4] timeout (ms), ARGV[5] the last message heard, then triples: "held" or "waiting", lock, request. One heartbeat. It brings
-- what was missed, and says which of those requests have nothing here any more: somebody may have deleted or evicted a key.
local refused = enter()
if refused then
  return { refused }
end
call('PEXPIRE', prefix .. 's:' .. sid, ARGV[4])
call('ZADD', prefix .. 'sessions', milliseconds() + ARGV[4], sid)
local heard = tonumber(ARGV[5])
local forgotten = tonumber(call('HGET', prefix .. 's:' .. sid, 'heard') or 0)
if forgotten < heard then
  for number = forgotten + 1, heard do
    call('HDEL', prefix .. 's:' .. sid, 'x' .. number)
  end
  call('HSET', prefix .. 's:' .. sid, 'heard', heard)
end
local missing = {}
for index = 6, #ARGV, 3 do
  local lock, request = ARGV[index + 1], ARGV[index + 2]
  if ARGV[index] == 'waiting' then
    hand_over(lock)
  end
  local has = call('HEXISTS', prefix .. lock, request) == 1
  if not has and not (ARGV[index] == 'waiting' and call('ZSCORE', prefix .. 'q:' .. lock, request)) then
    missing[#missing + 1] = request
  end
end
local answer = { 'ok', sweep(), #missing }
for _, request in ipairs(missing) do
  answer[#answer + 1] = request
end
tell_lock_watchers()
return unheard(sid, heard, answer)

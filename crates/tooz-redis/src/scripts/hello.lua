-- ARGV[4] the last message heard, ARGV[5] behind which message to begin, or "" for the first that no beat has acknowledged. The first
-- word of a session on a new connection, and what it asks with when a number was left out; it prolongs nothing. Answers the last number,
-- up to which number this answer goes, and every message that no beat has acknowledged, heard or not: a server that has fallen back
-- may have given numbers that were heard to other messages. From here on it gives none of them again.
local refused = enter()
if refused then
  return { refused }
end
local known, heard = last_told(sid), tonumber(ARGV[4])
if known < heard then
  write_though_full()
  call('HSET', prefix .. 's:' .. sid, 'told', heard)
end
local answer = { 'ok', math.max(known, heard), 0 }
answer[3] = unheard(sid, tonumber(ARGV[5]) or forgotten(sid), answer)
return answer

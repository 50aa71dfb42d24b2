-- ARGV[4] the last message heard. The first word of a session on a new connection; it prolongs nothing.
local refused = enter()
if refused then
  return { refused }
end
return unheard(sid, tonumber(ARGV[4]), { 'ok' })

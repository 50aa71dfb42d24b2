-- ARGV[4] group.
if call('HSETNX', prefix .. 'groups', ARGV[4], next_token()) == 0 then
  return { 'exists' }
end
return { 'ok' }

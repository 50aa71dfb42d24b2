-- What a session holds and waits for: whether it is all there, and what there is to hear.

-- ARGV[from] is the last message heard. What was acknowledged goes, a part at a time.
local function acknowledge(from)
  local known, heard = forgotten(sid), tonumber(ARGV[from])
  if known >= heard then
    return
  end
  local last = math.min(heard, known + 2000)
  left_over = left_over or last < heard
  for first = known + 1, last, 500 do
    local fields = {}
    for number = first, math.min(first + 499, last) do
      fields[#fields + 1] = 'x' .. string.format('%.0f', number)
    end
    call('HDEL', prefix .. 's:' .. sid, unpack(fields))
  end
  call('HSET', prefix .. 's:' .. sid, 'heard', string.format('%.0f', last))
end

-- Whether the request has here what it thinks; what is there is kept for longer.
local function is_as_thought(how, where, request)
  if how == 'waiting' then
    keep('q:' .. where)
    keep('w:' .. where)
    -- What is handed over just now is among the news of this very answer.
    local waits = call('ZSCORE', prefix .. 'q:' .. where, request)
    pcall(hand_over, where)
    return waits
  elseif how == 'there' then
    return call('HEXISTS', prefix .. where, request) == 1
  elseif how == 'joined' then
    local group, member = string.match(where, '^g:(.-)\n(.*)$')
    keep('g:' .. group)
    -- A group that was deleted by hand has no members any more.
    return member_of(group, member) == request and call('HEXISTS', prefix .. 'groups', group) == 1
  end
  keep(where)
  return call('HEXISTS', prefix .. where, request) == 1
end

-- Behind the last message heard stand triples: "held", "there" (held, and kept no longer by that), "waiting" or "joined", where, request. Answers with those that have something else
-- here than they think: nothing at all, where a key was deleted or evicted, or what they still wait for; then the news.
local function look_after(from, answer)
  acknowledge(from)
  local mistaken = 0
  for index = from + 1, #ARGV, 3 do
    if not unless_foreign(is_as_thought, ARGV[index], ARGV[index + 1], ARGV[index + 2]) then
      mistaken = mistaken + 1
      answer[#answer + 1] = ARGV[index + 2]
    end
  end
  tell_lock_watchers()
  local heard = tonumber(ARGV[from])
  left_over = unheard(sid, heard, answer) < last_told(sid) or left_over
  return mistaken
end

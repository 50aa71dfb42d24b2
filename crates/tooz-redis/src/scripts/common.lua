-- What every script of this driver begins with: which sessions are alive, the next token, and which session is let in.
--
-- KEYS[1]  the prefix of all keys of the namespace, hash tag included, so that all of them are in one slot
-- ARGV[1]  the prefix of all channels: channels know no database numbers, so it has the number in it
-- ARGV[2]  the id of the session that asks, or "" if it owns nothing
-- ARGV[3]  the number of the connection it asks on; each new connection of a session has a greater one
--
-- Keys below the prefix:
--   fence       the last token; also the version of groups and the ticket of queues: one counter for all
--   layout      the number of the layout that all this is; no number: a version from before it was written down, and that was 1
--   sessions    sorted set of the sessions' ids by the time (ms) at which they end without a beat
--   more        set of the locks whose hand-over was begun and is to be gone on with
--   s:ID        hash, lives as long as the session: member, epoch, told, heard, and one x<number> for each message not yet heard
--   o:ID        hash of what a session owns: request -> lock, or join -> "g:GROUP\nMEMBER"; and one empty field, so that it never is empty
--   l:NAME e:NAME           hash of a lock's (an election's) holders: request -> "MODE TOKEN SINCE SESSION"
--   q:l:NAME w:l:NAME ...   its queue: sorted set of requests by ticket, and hash request -> "MODE SESSION"
--   groups      hash of all groups: name -> version
--   g:NAME      hash of a group's members: member -> "JOIN SESSION CAPABILITIES"
-- All but `fence`, `layout` and `groups` expire: what belongs to a session is looked after by its beats, so that what has no owner left to
-- clear it up goes by itself.
local prefix, channels, sid, epoch = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local call = redis.call

-- How long (ms) a key is kept that no beat looks after: 60 days. A beat comes to each within 20 (`holdings.rs`).
local KEPT = '5184000000'
local kept = {}
local function keep(key)
  if not kept[key] then
    kept[key] = true
    call('PEXPIRE', prefix .. key, KEPT)
  end
end

-- How much this script may still do: each script is short, however many are concerned, and says what it has left over.
local work, left_over = 100, false
local function over()
  return left_over and 'more' or ''
end

-- A full server refuses a script whose first write takes memory, and nothing behind a first write that takes none. So what only
-- keeps, hands over or gives back what stands begins with this.
local function write_though_full()
  call('HDEL', prefix .. 'groups', '')
end

-- A session lives if and only if its key does; time stands still during a script, so one look is enough.
local lives = {}
local function alive(id)
  local known = lives[id]
  if known == nil then
    known = call('EXISTS', prefix .. 's:' .. id) == 1
    lives[id] = known
  end
  return known
end

-- The server's time in microseconds; it too stands still.
local clock
local function microseconds()
  if not clock then
    local time = call('TIME')
    clock = time[1] * 1000000 + time[2]
  end
  return clock
end

local function milliseconds()
  return math.floor(microseconds() / 1000)
end

-- Grows also when the server was wiped, fell back to an older replica, or its clock was set back.
-- Numbers above 2^53 are not exact here.
local function next_token()
  local last = tonumber(call('GET', prefix .. 'fence') or 0)
  if not last or not (last < 9007199254740991) then
    error('the counter fence is at its end')
  end
  local token = string.format('%.0f', math.max(last + 1, microseconds()))
  call('SET', prefix .. 'fence', token)
  return token
end

-- Refuses what comes from a session that has ended, and what an earlier connection of a living one sent and is waited for no more
-- any more: after the first word on a new connection, nothing that was under way on an old one takes effect.
local function enter()
  local known = call('HGET', prefix .. 's:' .. sid, 'epoch')
  if not known then
    return 'lost'
  end
  known = tonumber(known)
  if epoch < known then
    return 'stale'
  end
  if epoch > known then
    write_though_full()
    call('HSET', prefix .. 's:' .. sid, 'epoch', epoch)
  end
  lives[sid] = true
  return nil
end

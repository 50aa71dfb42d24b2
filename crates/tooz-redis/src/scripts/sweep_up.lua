-- Looks for the dead, and says when to look again.
local next_look = sweep()
tell_lock_watchers()
return { 'ok', next_look }

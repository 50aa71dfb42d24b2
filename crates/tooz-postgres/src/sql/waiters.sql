-- The members that wait at the gate $1 for the lock $2, first come first. The one that has the gate is the first, until its session has the lock. A waiting connection
-- holds the pair of numbers of its session beside it, or of its complement where it waits for a shared lock (`waits` in layout.rs).
WITH advisory AS MATERIALIZED (
    SELECT pid, objsubid, mode, granted, waitstart, (classid::bigint << 32) | objid::bigint AS key
    FROM pg_locks
    WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
SELECT whose.member, tag.key <> whose.session AS shared
FROM advisory AS place
JOIN advisory AS tag ON tag.pid = place.pid AND tag.objsubid = 2 AND tag.granted
JOIN sessions AS whose ON whose.session IN (tag.key, ~tag.key)
WHERE place.objsubid = 1 AND place.key = $1 AND place.mode = 'ExclusiveLock'
    AND EXISTS (
        SELECT 1 FROM advisory AS living
        WHERE living.pid = whose.pid AND living.objsubid = 1 AND living.key = whose.session AND living.granted
    )
    AND (
        NOT place.granted
        OR EXISTS (SELECT 1 FROM advisory AS own WHERE own.pid = place.pid AND own.objsubid = 1 AND own.key = $2 AND NOT own.granted)
        OR NOT EXISTS (SELECT 1 FROM advisory AS own WHERE own.pid = whose.pid AND own.objsubid = 1 AND own.key = $2 AND own.granted)
    )
ORDER BY place.granted DESC, place.waitstart NULLS LAST

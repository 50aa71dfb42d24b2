-- The holders of the lock $1. A grant that is not written down yet has no token. $2: look for such grants. The locks of sessions that are over can
-- be had for a moment, and are given back at once.
WITH written AS MATERIALIZED (SELECT * FROM grants WHERE key = $1 AND (namespace, space, name) = ($3, $4, $5)),
living AS MATERIALIZED (
    SELECT * FROM written
    WHERE CASE WHEN pg_try_advisory_lock_shared(session) THEN NOT pg_advisory_unlock_shared(session) ELSE true END
),
unwritten AS MATERIALIZED (
    SELECT whose.session, whose.member FROM pg_locks held JOIN sessions whose ON whose.pid = held.pid
    WHERE $2 AND held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
        AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND ((held.classid::bigint << 32) | held.objid::bigint) = $1
        AND NOT EXISTS (SELECT 1 FROM written WHERE written.session = whose.session)
)
SELECT session, whose.member, living.exclusive, living.token, extract(epoch FROM living.since)::double precision AS since
FROM living JOIN sessions whose USING (session)
UNION ALL
SELECT session, member, NULL, NULL, NULL FROM unwritten
WHERE CASE WHEN pg_try_advisory_lock_shared(session) THEN NOT pg_advisory_unlock_shared(session) ELSE true END

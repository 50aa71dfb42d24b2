-- The living members of a group with its version: one snapshot for both. No row: no such group. A session that is looked at takes no lasting place in
-- the server's lock table: what can be had is given back at once.
WITH entered AS MATERIALIZED (SELECT * FROM members WHERE namespace = $1 AND name = $2),
living AS MATERIALIZED (
    SELECT * FROM entered
    WHERE CASE WHEN pg_try_advisory_lock_shared(session) THEN NOT pg_advisory_unlock_shared(session) ELSE true END
)
SELECT groups.version, living.member, living.request, living.capabilities
FROM groups LEFT JOIN living ON true
WHERE groups.namespace = $1 AND groups.name = $2

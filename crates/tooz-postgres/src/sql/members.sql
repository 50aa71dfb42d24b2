-- The living members of a group with its version: one snapshot for both. No row: no such group.
WITH entered AS MATERIALIZED (SELECT * FROM members WHERE namespace = $1 AND name = $2),
living AS MATERIALIZED (SELECT * FROM entered WHERE NOT pg_try_advisory_xact_lock_shared(session))
SELECT groups.version, living.member, living.request, living.capabilities
FROM groups LEFT JOIN living ON true
WHERE groups.namespace = $1 AND groups.name = $2

-- The locks that living sessions of the namespace $1 hold, each once, by name where any grant of it is written down. $2 is held by each session, like
-- its own number; neither is a lock.
WITH advisory AS MATERIALIZED (
    SELECT pid, (classid::bigint << 32) | objid::bigint AS key
    FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
),
held AS MATERIALIZED (
    SELECT own.key, min(whose.session) AS session
    FROM sessions AS whose
    JOIN advisory AS living ON living.pid = whose.pid AND living.key = whose.session
    JOIN advisory AS own ON own.pid = whose.pid AND own.key <> whose.session AND own.key <> $2
    WHERE whose.namespace = $1
    GROUP BY own.key
)
SELECT DISTINCT ON (held.key) held.key, held.session, named.space, named.name
FROM held LEFT JOIN grants AS named ON named.key = held.key AND named.namespace = $1
ORDER BY held.key

-- Takes the lock if no grant is in the way and no request waits at the gate, and a token once it is taken. One round trip, no row, no transaction id.
-- $1 pass without asking at the gate, $2 the gate, $3 the lock, $4 how: 2 exclusive, 1 shared, 0 shared and had already, $5.. its name,
-- $8 the process of the server that is the session's: nothing is taken by another one.
SELECT
    taken.token,
    taken.pid,
    CASE WHEN taken.token IS NULL THEN (
        SELECT format('%s %s in namespace %s', rival.space, rival.name, rival.namespace) FROM grants rival
        WHERE rival.key = $3 AND (rival.namespace, rival.space, rival.name) <> ($5, $6, $7) LIMIT 1
    ) END AS rival
FROM (
    SELECT
        CASE WHEN pg_backend_pid() = $8 AND ($1 OR pg_try_advisory_xact_lock_shared($2)) THEN
            CASE WHEN CASE $4 WHEN 2 THEN pg_try_advisory_lock($3) WHEN 1 THEN pg_try_advisory_lock_shared($3) ELSE true END THEN
                nextval('fence')
            END
        END AS token,
        pg_backend_pid() AS pid
) taken

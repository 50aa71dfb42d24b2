-- The same for a grant that stands in the table; the row goes first, so that it is never there without the lock. $4 the request, $5 whom to
-- tell, or null.
WITH gone AS (DELETE FROM grants WHERE key = $1 AND request = $4 RETURNING 1)
SELECT
    pg_backend_pid() = $3 AS is_ours,
    CASE WHEN pg_backend_pid() = $3 THEN
        CASE $2 WHEN 2 THEN pg_advisory_unlock($1) WHEN 1 THEN pg_advisory_unlock_shared($1) ELSE true END
    END,
    CASE WHEN $5 IS NOT NULL THEN pg_notify($5, '') END
FROM (SELECT count(*) FROM gone) AS gone_first

-- The same for a grant that stands in the table; the row goes first, so that it is never there without the lock. $4 whom to tell, or null.
WITH gone AS (DELETE FROM grants WHERE key = $1 AND request = $3 RETURNING 1)
SELECT
    CASE $2 WHEN 2 THEN pg_advisory_unlock($1) WHEN 1 THEN pg_advisory_unlock_shared($1) ELSE true END,
    CASE WHEN $4 IS NOT NULL THEN pg_notify($4, '') END
FROM (SELECT count(*) FROM gone) AS gone_first

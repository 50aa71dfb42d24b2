-- $1 the lock, $2 how: 2 exclusive, 1 the last shared one, 0 a shared one beside others of this session. What another process of the server
-- than $3 has is another's.
SELECT
    pg_backend_pid() = $3 AS is_ours,
    CASE WHEN pg_backend_pid() = $3 THEN
        CASE $2 WHEN 2 THEN pg_advisory_unlock($1) WHEN 1 THEN pg_advisory_unlock_shared($1) ELSE true END
    END

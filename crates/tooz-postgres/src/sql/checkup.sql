-- The settings that matter; $1 the schema's name. max_locks_per_transaction counts per connection, and per prepared transaction. What only some
-- may read is null for the others; how many connections there are is read from what all may read. Limits that do not bind this user are null.
SELECT
    current_setting('server_version') AS version,
    current_setting('max_connections')::bigint AS max_connections,
    CASE WHEN rolsuper THEN 0 ELSE current_setting('superuser_reserved_connections')::bigint END
        + CASE WHEN rolsuper THEN 0 ELSE coalesce(current_setting('reserved_connections', true), '0')::bigint END AS reserved_connections,
    (SELECT sum(numbackends)::bigint FROM pg_stat_database WHERE datid <> 0) AS used_connections,
    current_user::text AS role,
    CASE WHEN NOT rolsuper AND rolconnlimit >= 0 THEN rolconnlimit::bigint END AS role_limit,
    (SELECT count(*) FROM pg_stat_activity WHERE usesysid = role.oid) AS role_connections,
    current_database()::text AS database,
    (SELECT datconnlimit::bigint FROM pg_database WHERE datname = current_database() AND NOT rolsuper AND datconnlimit >= 0) AS database_limit,
    (SELECT numbackends::bigint FROM pg_stat_database WHERE datname = current_database()) AS database_connections,
    current_setting('max_locks_per_transaction')::bigint
        * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint) AS lock_places,
    current_setting('synchronous_standby_names') AS standbys,
    fence.cache_size AS cache,
    fence.cycle OR fence.increment_by < 1 OR fence.max_value < 9223372036854775807 AS fence_turns
FROM pg_roles AS role
LEFT JOIN pg_sequences AS fence ON fence.schemaname = $1 AND fence.sequencename = 'fence'
WHERE role.rolname = current_user
